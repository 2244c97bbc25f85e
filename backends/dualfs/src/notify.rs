//! Telling other clients what one of them changed.

use stratafs_core::{Context, Name};

use crate::DualFs;
use crate::node::Node;

impl DualFs {
    /// The name leads elsewhere.
    pub(crate) fn tell_entry(&self, cx: &Context<'_>, dir: &Node, name: Name<'_>) {
        self.notifiers.each_but(cx.session, |client| {
            client.inval_entry(dir.id, name);
            client.inval_inode(dir.id, 0, 0);
        });
    }

    /// The name is gone, that led to `child`.
    pub(crate) fn tell_gone(
        &self,
        cx: &Context<'_>,
        dir: &Node,
        child: Option<&Node>,
        name: Name<'_>,
    ) {
        self.notifiers.each_but(cx.session, |client| {
            match child {
                Some(child) => client.delete(dir.id, child.id, name),
                None => client.inval_entry(dir.id, name),
            }
            client.inval_inode(dir.id, 0, 0);
        });
    }

    /// Attributes changed, and maybe the size with them.
    pub(crate) fn tell_attr(&self, cx: &Context<'_>, node: &Node) {
        self.notifiers.each_but(cx.session, |client| client.inval_inode(node.id, 0, 0));
    }
}
