//! Opening the index, and finding out whether it is for these layers.
//!
//! As the kernel does, the root of the writable layer records that of the topmost read-only one as
//! its origin, and the index the writable layer's: in both the file handle is one of another object
//! when either was exchanged. An index over another topmost layer is still right for the files that
//! are there, whose handles it has; one of another writable layer is not.

use stratafs_core::{Errno, Name, Result};

use crate::builder::BuildError;
use crate::format::{Namespace, Record};
use crate::fs::Upper;
use crate::layer::Real;
use crate::links::Links;
use crate::origin::{self, Of as HandleOf};
use crate::stage;

/// What an index is for.
pub(crate) struct Of<'a> {
    pub(crate) upper: &'a Upper,
    /// The root of the topmost read-only layer.
    pub(crate) lower: &'a Real,
    pub(crate) names: Namespace,
    /// Nothing is to be changed.
    pub(crate) inspect: bool,
}

/// The index, and whether recorded origins are objects of these layers. `wanted`: what the user said.
pub(crate) fn open(of: &Of<'_>, wanted: Option<bool>) -> Result<(Option<Links>, bool), BuildError> {
    let failed = |errno| {
        let (operation, layer) = ("opening the index", "the staging directory".to_owned());
        BuildError::Layer { operation, layer, errno }
    };
    let origin = of.verify(&of.upper.root, Record::Origin, of.lower, HandleOf::Lower);
    let origin = origin.map_err(failed)?;
    let holds = origin != Verdict::Other;
    if wanted == Some(false) {
        return Ok((None, holds));
    }
    let dir = Name::new(b"index").map_err(Errno::from);
    let dir = dir.and_then(|name| match of.inspect {
        true => Ok(of.upper.staging.child(name)?.map(|(dir, _)| dir)),
        false => stage::directory(&of.upper.staging, name, 0o700).map(Some),
    });
    let Some(dir) = dir.map_err(failed)? else { return Ok((None, holds)) };
    let upper = of.verify(&dir, Record::Upper, &of.upper.root, HandleOf::Upper).map_err(failed)?;
    let other = match (&origin, &upper) {
        (Verdict::Other, _) => Some("other read-only layers"),
        (_, Verdict::Other) => Some("another writable layer"),
        _ => None,
    };
    if let (Some(what), Some(true)) = (other, wanted) {
        return Err(BuildError::OtherLayers { what });
    }
    if let (Verdict::Other, Some(what)) = (&upper, other) {
        log::warn!(
            "overlay: the index is for {what} and is not used: files that are copied up part with \
             their other names"
        );
        return Ok((None, holds));
    }
    let record = |real: &Real, record, verdict| match verdict {
        Verdict::Unrecorded(value) if !of.inspect => real.set_xattr(of.names.name(record), &value),
        _ => Ok(()),
    };
    record(&of.upper.root, Record::Origin, origin)
        .and_then(|()| record(&dir, Record::Upper, upper))
        .map_err(failed)?;
    let links = Links::new(dir, of.names.name(Record::Nlink), !of.inspect).map_err(failed)?;
    Ok((Some(links), holds))
}

/// What a record says of the object that it should be about.
#[derive(PartialEq, Eq)]
enum Verdict {
    Same,
    Other,
    /// It says nothing, and would be this.
    Unrecorded(Vec<u8>),
}

impl Of<'_> {
    fn verify(&self, at: &Real, record: Record, about: &Real, of: HandleOf) -> Result<Verdict> {
        // What has no handles can't be told apart by them.
        let Some(id) = about.fs().persistent_id(about.id())? else { return Ok(Verdict::Same) };
        let value = origin::value(&id, of);
        Ok(match at.xattr(self.names.name(record))? {
            Some(recorded) if recorded.is_empty() || recorded == value => Verdict::Same,
            Some(_) => Verdict::Other,
            None if value.is_empty() => Verdict::Same,
            None => Verdict::Unrecorded(value),
        })
    }
}
