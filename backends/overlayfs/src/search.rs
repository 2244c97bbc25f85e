//! The search for a name in the layers below: from the top down, along redirects.

use std::sync::Arc;

use stratafs_core::{Attr, FileType, NameBuf, Result};

use crate::OverlayFs;
use crate::format::Redirect;
use crate::layer::Real;
use crate::lookup::{Object, Probe};

/// Which parts of the layers below are searched, and by which path.
pub(crate) struct Search {
    /// Directories of layers, the topmost first.
    pub(crate) bases: Vec<Real>,
    /// One name, or more after a redirect.
    pub(crate) path: Arc<[NameBuf]>,
}

/// Whether something ends the search.
enum Step {
    Next,
    Done,
}

impl OverlayFs {
    /// Goes through the layers of `search`, and puts what they have into `object`.
    pub(crate) fn search(&self, mut search: Search, object: &mut Option<Object>) -> Result<()> {
        let mut at = 0;
        while let Some(base) = search.bases.get(at).cloned() {
            at += 1;
            match self.search_layer(&base, &mut search, at, object)? {
                Step::Done => return Ok(()),
                Step::Next => {}
            }
        }
        Ok(())
    }

    /// Follows the path in one layer, after which that at `next` is to be searched. A redirect on the
    /// way changes what is searched in the layers below.
    fn search_layer(
        &self,
        base: &Real,
        search: &mut Search,
        next: usize,
        object: &mut Option<Object>,
    ) -> Result<Step> {
        let mut dir = base.clone();
        let mut step = Step::Next;
        let path = Arc::clone(&search.path);
        let last = next == search.bases.len();
        for (depth, name) in path.iter().enumerate() {
            let is_end = depth + 1 == path.len();
            let (mut real, attr, mut alone) = match self.probe(&dir, name.as_name())? {
                Probe::Absent => return Ok(step),
                Probe::Whiteout => return Ok(Step::Done),
                Probe::Object { real, attr, alone } => (real, attr, alone),
            };
            let wants_file = object.as_ref().is_some_and(|object| !object.is_dir());
            if !attr.is_dir() {
                if !is_end || !self.take_file(&real, attr, object)? {
                    return Ok(Step::Done);
                }
                if let Some(redirect) = self.redirect(&real)? {
                    self.redirected(search, base, next, (&path, depth), redirect);
                }
                return Ok(Step::Next);
            }
            if is_end && wants_file {
                return Ok(Step::Done);
            }
            if !last {
                let (opaque, redirect) = self.opaque_or_redirect(&mut real)?;
                alone = alone || opaque;
                if let Some(redirect) = redirect.filter(|_| !alone) {
                    self.redirected(search, base, next, (&path, depth), redirect);
                }
            }
            if alone {
                step = Step::Done;
            }
            if is_end {
                let ino = self.map_ino(&real, attr.ino);
                let found = object.get_or_insert_with(|| Object::new(attr));
                found.lower_ino.get_or_insert(ino);
                found.lowers.push(real);
                return Ok(step);
            }
            dir = real;
        }
        Ok(step)
    }

    /// Takes what is no directory, `real` of a read-only layer, into `object`. Says whether its data
    /// is to be looked for further down.
    fn take_file(&self, real: &Real, attr: Attr, object: &mut Option<Object>) -> Result<bool> {
        let goes_on = match object {
            None => self.is_metacopy(real, &attr)?,
            Some(file) if file.lacks_data && attr.kind() == FileType::Regular => {
                self.is_metacopy(real, &attr)?
            }
            // It is hidden.
            Some(_) => return Ok(false),
        };
        let file = object.get_or_insert_with(|| Object::new(attr));
        file.lowers.push(real.clone());
        file.lacks_data = goes_on;
        Ok(goes_on)
    }

    /// The layers below `base` are searched as `redirect` says, which was found on the name at
    /// `depth` of `path`.
    fn redirected(
        &self,
        search: &mut Search,
        base: &Real,
        next: usize,
        (path, depth): (&[NameBuf], usize),
        redirect: Redirect,
    ) {
        let tail = path.get(depth + 1..).unwrap_or_default();
        let (bases, head) = match redirect {
            Redirect::Absolute(names) => {
                let below = self.lowers.iter().filter(|root| root.layer > base.layer);
                (below.cloned().collect(), names)
            }
            Redirect::Sibling(name) => {
                let mut names = path.get(..depth).unwrap_or_default().to_vec();
                names.push(name);
                (search.bases.split_off(next), names)
            }
        };
        search.path = [&head, tail].concat().into();
        // The search goes on after as many bases as it has seen.
        search.bases.truncate(next);
        search.bases.extend::<Vec<Real>>(bases);
    }
}
