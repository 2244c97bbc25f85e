//! What an operation costs, in calls of layers.

use std::sync::Arc;

use stratafs_core::OpKind;

use crate::support::layers::{Layers, Watch, layer, nothing};
use crate::support::{cx, node, on};

const LAYERS: usize = 20;
const DEPTH: usize = 20;

/// The path of the directory at the bottom.
fn deep() -> String {
    (0..DEPTH).map(|depth| format!("d{depth}")).collect::<Vec<_>>().join("/")
}

/// Layers that all have the deep directory, with a file of its own in it, each of them watched; the
/// writable layer, which has nothing yet, comes last.
fn layers() -> (Layers, Vec<Arc<Watch>>) {
    let mut watches = Vec::new();
    let mut watched = |fs| {
        let (fs, watch) = Watch::over(fs, nothing);
        watches.push(watch);
        fs
    };
    let lowers: Vec<_> = (0..LAYERS)
        .map(|number| {
            watched(layer(|w| {
                let path = deep();
                let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
                ends.for_each(|end| w.mkdir(&path[..end], 0o755).unwrap());
                w.file(format!("{path}/of-{number}"), b"").unwrap();
            }))
        })
        .collect();
    let mut layers = Layers::new(lowers);
    layers.scratch = watched(Arc::clone(&layers.scratch));
    (layers, watches)
}

fn calls(watches: &[Arc<Watch>]) -> usize {
    let calls = watches.iter().map(|watch| watch.all()).sum();
    watches.iter().for_each(|watch| watch.clear());
    calls
}

#[test]
fn known_deep_path_costs_a_call_or_two_a_name_whatever_the_number_of_layers() {
    let (layers, watches) = layers();
    let fs = layers.build();
    calls(&watches);
    let held = node(&fs, &deep());
    let cold = calls(&watches);
    assert!(cold <= LAYERS * DEPTH * 2, "{cold}: each directory of each layer is looked at once");
    assert_eq!(node(&fs, &deep()), held);
    let warm = calls(&watches);
    assert!(warm <= DEPTH * 2, "{warm}");
    // With all of it in the writable layer too.
    on(&fs, |w| w.chmod(deep(), 0o700).unwrap());
    let again = node(&fs, &deep());
    calls(&watches);
    assert_eq!(node(&fs, &deep()), again);
    let warm = calls(&watches);
    assert!(warm <= DEPTH * 2, "{warm}");
}

#[test]
fn names_that_a_listed_directory_has_not_cost_no_call() {
    let (layers, watches) = layers();
    let fs = layers.build();
    let dir = node(&fs, &deep());
    on(&fs, |w| assert_eq!(w.names(deep()).unwrap().len(), LAYERS));
    calls(&watches);
    for absent in ["a", "b", "of-20"] {
        let found = fs.lookup(&cx(), dir, crate::support::name(absent)).unwrap();
        assert!(found.found().is_err());
    }
    assert_eq!(calls(&watches), 0);
    let found = fs.lookup(&cx(), dir, crate::support::name("of-7")).unwrap().found().unwrap();
    let first = calls(&watches);
    assert!(first <= LAYERS + 1, "{first}");
    fs.lookup(&cx(), dir, crate::support::name("of-7")).unwrap();
    assert!(calls(&watches) <= 2, "it is known");
    fs.forget(found.node, 2);
}

#[test]
fn new_file_in_a_listed_directory_asks_no_layer_below() {
    let (layers, watches) = layers();
    let fs = layers.build();
    let _dir = node(&fs, &deep());
    on(&fs, |w| {
        w.chmod(deep(), 0o700).unwrap();
        w.names(deep()).unwrap();
    });
    let (upper, lowers) = watches.split_last().unwrap();
    calls(&watches);
    let dir = node(&fs, &deep());
    calls(&watches);
    let name = crate::support::name("new");
    fs.mkdir(&cx(), dir, name, 0o755).unwrap();
    assert_eq!(lowers.iter().map(|watch| watch.all()).sum::<usize>(), 0);
    assert!(upper.all() <= 2, "{}", upper.all());
    assert_eq!(upper.count(OpKind::Mkdir), 1);
}

#[test]
fn removal_of_a_file_below_looks_for_it_once() {
    let (layers, watches) = layers();
    let fs = layers.build();
    let dir = node(&fs, &deep());
    on(&fs, |w| w.chmod(deep(), 0o700).unwrap());
    calls(&watches);
    // It is at the bottom.
    fs.unlink(&cx(), dir, crate::support::name("of-0")).unwrap();
    let lookups: usize = watches.iter().map(|watch| watch.count(OpKind::Lookup)).sum();
    assert!(lookups <= LAYERS + 1, "{lookups}");
    assert!(calls(&watches) <= LAYERS + 5);
}
