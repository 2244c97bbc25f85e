//! What a case finds, and the checks it finds it by.

use std::fmt;
use std::panic::Location;

use stratafs_core::Errno;

/// Why a case failed, and where in its text.
#[derive(Clone, Debug)]
pub struct Failure {
    message: String,
    location: Option<&'static Location<'static>>,
}

impl Failure {
    /// A failure of the calling line.
    #[must_use]
    #[track_caller]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), location: Some(Location::caller()) }
    }

    /// A failure that belongs to no line of a case, such as a leak found afterwards.
    #[must_use]
    pub fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), location: None }
    }

    /// What was found.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.location {
            Some(at) => write!(f, "{} ({}:{})", self.message, at.file(), at.line()),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Errno> for Failure {
    /// An operation that should have worked.
    #[track_caller]
    fn from(errno: Errno) -> Self {
        Self::new(format!("an operation that should work answered {errno}"))
    }
}

/// The outcome of a case.
pub type Verdict = Result<(), Failure>;

/// Checks that `got` is `want`; `what` names it.
///
/// # Errors
/// They differ.
#[track_caller]
pub fn equal<T, U>(got: T, want: U, what: &str) -> Verdict
where
    T: PartialEq<U> + fmt::Debug,
    U: fmt::Debug,
{
    if got == want {
        return Ok(());
    }
    Err(Failure::new(format!("{what}: {} where {} is right", short(&got), short(&want))))
}

/// Checks that `condition` holds; `what` says what it means.
///
/// # Errors
/// It does not.
#[track_caller]
pub fn holds(condition: bool, what: &str) -> Verdict {
    if condition { Ok(()) } else { Err(Failure::new(format!("not so: {what}"))) }
}

/// Checks that an operation was refused with `want`.
///
/// # Errors
/// It worked, or was refused otherwise.
#[track_caller]
pub fn refused<T: fmt::Debug>(got: Result<T, Errno>, want: Errno) -> Verdict {
    refused_any(got, &[want])
}

/// Checks that an operation was refused with one of `want`, where the standards leave the choice.
///
/// # Errors
/// It worked, or was refused otherwise.
#[track_caller]
pub fn refused_any<T: fmt::Debug>(got: Result<T, Errno>, want: &[Errno]) -> Verdict {
    match got {
        Err(errno) if want.contains(&errno) => Ok(()),
        Err(errno) => Err(Failure::new(format!("refused with {errno:?}, not {want:?}"))),
        Ok(value) => {
            Err(Failure::new(format!("worked ({}), where {want:?} is right", short(&value))))
        }
    }
}

/// A value for a message: long ones (file contents) cut.
fn short(value: &impl fmt::Debug) -> String {
    const LONGEST: usize = 400;
    let mut text = format!("{value:?}");
    if let Some((cut, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question_mark() -> Verdict {
        Err(Errno::EIO)?
    }

    #[test]
    fn failure_through_question_mark_names_the_line_of_the_case() {
        let text = question_mark().unwrap_err().to_string();
        assert!(text.contains("EIO") && text.contains("verdict.rs"), "{text}");
    }

    #[test]
    fn checks_pass_what_is_right_and_fail_what_is_not() {
        assert!(equal(1, 1, "one").is_ok() && equal(1, 2, "one").is_err());
        assert!(holds(true, "so").is_ok() && holds(false, "so").is_err());
        assert!(refused::<()>(Err(Errno::ENOENT), Errno::ENOENT).is_ok());
        assert!(refused::<()>(Err(Errno::EIO), Errno::ENOENT).is_err());
        assert!(refused(Ok(()), Errno::ENOENT).is_err());
    }

    #[test]
    fn failure_of_long_values_is_cut() {
        let text = equal(vec![0u8; 10_000], vec![1u8; 10_000], "data").unwrap_err().to_string();
        assert!(text.len() < 1_200, "{}", text.len());
    }
}
