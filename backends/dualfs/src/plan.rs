//! The executor: what a policy's plan comes to.
//!
//! Every operation asks here for the object that it acts on. Whether that is where it was found, or
//! on the written side, to which it goes first, is the plan's to say and nobody else's.

use std::sync::Arc;

use stratafs_core::{Attr, Context, Errno, OpKind, Result, SetAttr};
use stratafs_transfer::Data;

use crate::DualFs;
use crate::node::Node;
use crate::policy::{Act, Look, Plan, Request, Side, Transfer};
use crate::side::Real;

impl DualFs {
    /// The side that is written.
    pub(crate) fn writes(&self) -> Side {
        self.written
    }

    /// Where names are looked for.
    pub(crate) fn look(&self) -> Look {
        self.policy.plan(&Request::new(OpKind::Lookup, false)).look
    }

    pub(crate) fn plan(&self, request: &Request<'_>) -> Plan {
        self.policy.plan(request)
    }

    /// The object of `node` that `request`, which changes nothing, acts on.
    pub(crate) fn to_read(&self, request: Request<'_>, node: &Arc<Node>) -> Result<Real> {
        match self.plan(&request.of(node.kind)).act {
            Act::Found => node.top(),
            Act::Written => self.to_write(request, node, Data::All),
        }
    }

    /// The object of `node` on the written side, that `request` acts on. It is transferred, with
    /// what data says of its data, if it is not there and the plan says so.
    ///
    /// No lock of names may be held: those of the parents are taken.
    ///
    /// # Errors
    /// * `EROFS`, or `EXDEV` of a rename: it is not there, and not to be transferred.
    pub(crate) fn to_write(
        &self,
        request: Request<'_>,
        node: &Arc<Node>,
        data: Data,
    ) -> Result<Real> {
        self.to_write_set(request, node, data, None).map(|(real, _)| real)
    }

    /// As [`to_write`](Self::to_write), and if it is transferred, with attributes changed as `set` says
    /// before the copy shows: what they are then is given too. So nothing is cut by a change that fails.
    pub(crate) fn to_write_set(
        &self,
        request: Request<'_>,
        node: &Arc<Node>,
        data: Data,
        set: Option<(&Context<'_>, &SetAttr)>,
    ) -> Result<(Real, Option<Attr>)> {
        if let Some(real) = node.written() {
            return Ok((real, None));
        }
        let plan = self.plan(&request.of(node.kind));
        if plan.act == Act::Found || plan.transfer == Transfer::Nothing {
            return Err(refused(request.op));
        }
        self.transfer_set(node, data, set)
    }

    /// Whether `request` may hide what the other side has: a removal leaves a mark of it.
    pub(crate) fn may_hide(&self, request: Request<'_>, node: &Node) -> Result<()> {
        let plan = self.plan(&request.of(node.kind));
        let stays = plan.act == Act::Found || plan.transfer == Transfer::Nothing;
        if stays && node.written().is_none() { Err(refused(request.op)) } else { Ok(()) }
    }

    /// `node`, ready to be moved on the written side: there, and if it is a directory with everything
    /// that is in it.
    ///
    /// # Errors
    /// `EXDEV`: the plan does not say so.
    pub(crate) fn to_move(&self, request: Request<'_>, node: &Arc<Node>) -> Result<()> {
        let whole = node.with_place(|place| {
            place.written.is_some() && (place.other.is_none() || !node.is_dir())
        });
        if whole {
            return Ok(());
        }
        if !node.is_dir() {
            return self.to_write(request, node, Data::All).map(drop);
        }
        let plan = self.plan(&request.of(node.kind));
        if plan.act == Act::Found || plan.transfer != Transfer::Tree {
            return Err(Errno::EXDEV);
        }
        self.transfer_tree(node)
    }
}

/// What an operation is refused with that the plan does not let change anything.
fn refused(op: OpKind) -> Errno {
    if op == OpKind::Rename { Errno::EXDEV } else { Errno::EROFS }
}
