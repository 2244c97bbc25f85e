//! What waking an idle processor costs, made the same on every machine.
//!
//! A request wakes the server, its reply wakes the client. In a virtual machine a processor that
//! went idle has halted, and waking it takes an exit to the hypervisor: five times what the rest of
//! a small request costs. The kernel's governor therefore polls a while before it halts, by default
//! 200 µs, and then both stay awake. A machine that boots with the polling off would measure its
//! hypervisor and not the filesystem, so the bench runs with the kernel's default.

use std::fs;

use anyhow::{Context, Result};

const PARAMETER: &str = "/sys/module/haltpoll/parameters/guest_halt_poll_ns";

/// Nanoseconds: the default of the kernel's `haltpoll` governor.
const DEFAULT_NS: u64 = 200_000;

/// The polling, raised to the kernel's default until it is dropped.
#[derive(Debug)]
pub(super) struct HaltPoll {
    before: Option<u64>,
}

impl HaltPoll {
    /// The file of the parameter and its value, where this machine has the governor.
    pub(super) fn current() -> Option<(&'static str, u64)> {
        let value = fs::read_to_string(PARAMETER).ok()?.trim().parse().ok()?;
        Some((PARAMETER, value))
    }

    /// Raises the polling, where this machine has the governor and polls for less.
    pub(super) fn raised() -> Result<Self> {
        let Some((parameter, before)) = Self::current().filter(|(_, ns)| *ns < DEFAULT_NS) else {
            return Ok(Self { before: None });
        };
        fs::write(parameter, DEFAULT_NS.to_string())
            .with_context(|| format!("cannot set {parameter}"))?;
        println!(
            "{parameter} is {before} and for this run {DEFAULT_NS}, the kernel's default: without \
             it the cost of waking a halted processor hides every other."
        );
        Ok(Self { before: Some(before) })
    }
}

impl Drop for HaltPoll {
    fn drop(&mut self) {
        if let Some(before) = self.before
            && let Err(error) = fs::write(PARAMETER, before.to_string())
        {
            eprintln!("cannot set {PARAMETER} back to {before}: {error}");
        }
    }
}
