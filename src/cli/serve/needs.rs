//! What a composition needs of the host: directories and privileges. All else is taken away.

use crate::sandbox::{Privileges, Tree};
use crate::spec::Node;
use crate::spec::node::Checked;

/// What a composition needs.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) trees: Vec<Tree>,
    pub(super) privileges: Privileges,
}

impl Needs {
    /// Of `node` and all in it, served by root or by a user.
    pub(super) fn of(node: &Node, is_root: bool) -> Self {
        let mut needs = Self::default();
        needs.add(node, is_root, false);
        needs
    }

    fn add(&mut self, node: &Node, is_root: bool, is_lower: bool) {
        match node.backend.name {
            "passthrough" => {
                let is_readonly = is_lower || node.flag("readonly");
                // Of two, files are renamed from one into the other.
                let roots = [node.path("root_dir"), node.path("extra_root")];
                self.trees.push(Tree::new(roots.into_iter().flatten()).readonly(is_readonly));
                self.privileges |= of_ownership(node, is_root);
            }
            "overlay" => self.add_overlay(node, is_root),
            _ => {
                let paths = node.settings.iter().filter_map(|setting| match &setting.value {
                    Checked::Path(path) => Some(Tree::new([path])),
                    _ => None,
                });
                self.trees.extend(paths);
                for inner in children(node) {
                    self.add(inner, is_root, is_lower);
                }
            }
        }
    }

    fn add_overlay(&mut self, node: &Node, is_root: bool) {
        let is_upper =
            |inner: &Node| node.filesystem("upper").is_some_and(|upper| std::ptr::eq(upper, inner));
        for inner in children(node) {
            match (is_upper(inner), inner.path("root_dir"), node.path("work")) {
                // Files are renamed from one into the other.
                (true, Some(upper), Some(work)) => {
                    self.trees.push(Tree::new([upper, work]));
                    self.privileges |= of_ownership(inner, is_root);
                }
                (is_upper, ..) => self.add(inner, is_root, !is_upper),
            }
            // Its attributes on the host are `trusted.` ones.
            if is_host(inner, is_root) && !node.flag("userxattr") {
                self.privileges |= Privileges::TRUSTED_ATTRIBUTES;
            }
        }
    }
}

fn children(node: &Node) -> impl Iterator<Item = &Node> {
    node.settings.iter().filter_map(|setting| match &setting.value {
        Checked::Filesystem(inner) => Some(&**inner),
        _ => None,
    })
}

/// Whether owners and attributes are those of the host.
fn is_host(node: &Node, is_root: bool) -> bool {
    node.backend.name == "passthrough"
        && match node.choice("ownership") {
            Some(ownership) => ownership == "host",
            None => is_root,
        }
}

/// What it takes to be every user of the guest on the host. Records of owners take nothing: then
/// the files are the server's own.
fn of_ownership(node: &Node, is_root: bool) -> Privileges {
    match node.choice("ownership") {
        _ if is_host(node, is_root) => Privileges::EVERY_OWNER,
        Some("squash") => Privileges::EVERY_FILE,
        _ => Privileges::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Composition;

    fn privileges(spec: &str, is_root: bool) -> Privileges {
        Needs::of(Composition::parse(spec).unwrap().root(), is_root).privileges
    }

    #[test]
    fn privileges_are_none_where_owners_are_records_or_there_is_no_host() {
        for spec in ["mem()", "passthrough(/srv, ownership=virtual)", "overlay(lower=mem())"] {
            assert_eq!(privileges(spec, true), Privileges::empty(), "{spec}");
        }
        assert_eq!(privileges("/srv", false), Privileges::empty());
    }

    #[test]
    fn privileges_of_host_owners_are_over_files_and_over_an_overlays_attributes() {
        let (owners, all) = (Privileges::EVERY_OWNER, Privileges::TRUSTED_ATTRIBUTES);
        for (spec, needed) in [
            ("/srv", owners),
            ("passthrough(/srv, ownership=squash)", Privileges::EVERY_FILE),
            ("overlay(lower=/a, lower=/b)", owners | all),
            ("overlay(lower=/a, upper=/up, work=/work, userxattr)", owners),
            ("overlay(lower=/a, upper=mem())", owners | all),
            (
                "readonly(overlay(lower=passthrough(/a, ownership=virtual), upper=mem()))",
                Privileges::empty(),
            ),
        ] {
            assert_eq!(privileges(spec, true), needed, "{spec}");
        }
    }

    #[test]
    fn trees_of_an_overlay_keep_upper_and_work_together() {
        let composition =
            Composition::parse("overlay(lower=/a, lower=/b, upper=/up, work=/work)").unwrap();
        let trees = format!("{:?}", Needs::of(composition.root(), false).trees);
        let tree = |directories: &[&str], is_readonly| {
            format!("{:?}", Tree::new(directories.to_vec()).readonly(is_readonly))
        };
        for expected in [tree(&["/up", "/work"], false), tree(&["/a"], true), tree(&["/b"], true)] {
            assert!(trees.contains(&expected), "{trees}");
        }
    }
}
