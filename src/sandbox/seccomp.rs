//! The system calls that serving takes. Every other is forbidden.
//!
//! A list of what is allowed, so that what a later kernel adds is not. Where a call does other things
//! by its arguments, and serving takes some of them alone, those are told apart. The kernel keeps
//! which calls are always allowed in a bitmap, so for those the length of the list costs nothing.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fmt;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use stratafs_sys::calls;

use super::SandboxError;

/// What becomes of a process that makes a forbidden call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It is killed by SIGSYS.
    #[default]
    Kill,
    /// The call is made, and the kernel logs it.
    Log,
    /// SIGSYS is sent to the thread, which a debugger sees.
    Trap,
    /// There is no filter.
    None,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Log => "log",
            Self::Trap => "trap",
            Self::None => "none",
        })
    }
}

/// Allows every thread of this process the system calls of serving, for good.
///
/// # Errors
/// * [`SandboxError::Processor`]: there is no list for it.
/// * [`SandboxError::Filter`]: the kernel takes no filter.
pub fn install(action: Action) -> Result<(), SandboxError> {
    let action = match action {
        Action::Kill => SeccompAction::KillProcess,
        Action::Log => SeccompAction::Log,
        Action::Trap => SeccompAction::Trap,
        Action::None => return Ok(()),
    };
    let wrong = |error: seccompiler::BackendError| SandboxError::Filter(error.to_string());
    let arch: TargetArch = ARCH.try_into().map_err(|_| SandboxError::Processor)?;
    let filter = SeccompFilter::new(rules().map_err(wrong)?, action, SeccompAction::Allow, arch);
    let program: BpfProgram = filter.map_err(wrong)?.try_into().map_err(wrong)?;
    apply_filter_all_threads(&program).map_err(|error| SandboxError::Filter(error.to_string()))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules =
        calls::ALWAYS.iter().chain(calls::ALSO_HERE).map(|call| (*call, Vec::new())).collect();
    for (call, argument, values) in calls::BY_ARGUMENT {
        let mut allowed = Vec::new();
        for value in *values {
            let is = SeccompCondition::new(
                *argument,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                *value,
            )?;
            allowed.push(SeccompRule::new(vec![is])?);
        }
        rules.insert(*call, allowed);
    }
    Ok(rules)
}
