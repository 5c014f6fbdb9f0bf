//! Derives the outcome of a run from the serial log.

use crate::emulator::End;

/// Marker that the guest prints before it runs the command.
pub(crate) const BEGIN: &str = "@@SNUG-BEGIN";
/// Marker that the guest prints, with the exit status, after the command.
pub(crate) const RESULT: &str = "@@SNUG-RESULT";

/// Outcome of a run. Everything but [`Verdict::Exited`] with 0 is a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The command exited with this status.
    Exited(i32),
    /// The kernel panicked or oopsed, with this line of the log.
    Panicked(String),
    /// The run timed out.
    TimedOut,
    /// qemu failed.
    EmulatorFailed(Option<i32>),
    /// The guest powered off without a result.
    NoResult,
}

/// Derives the outcome from the log and the exit of qemu.
pub(crate) fn judge(log: &str, end: End) -> Verdict {
    if let Some(line) = log.lines().find(|line| is_panic(line)) {
        return Verdict::Panicked(line.trim().to_owned());
    }
    match (end, result(log)) {
        // A guest that hangs after the result has failed.
        (End::TimedOut, _) => Verdict::TimedOut,
        (End::Failed(code), _) => Verdict::EmulatorFailed(code),
        (End::PoweredOff, Some(code)) => Verdict::Exited(code),
        (End::PoweredOff, None) => Verdict::NoResult,
    }
}

/// The last result in the log: earlier ones may be output of the command.
fn result(log: &str) -> Option<i32> {
    log.lines().rev().find_map(|line| line.trim_end().strip_prefix(RESULT)?.trim().parse().ok())
}

fn is_panic(line: &str) -> bool {
    let signs = ["Kernel panic - not syncing", "Oops: ", "BUG: unable to handle", "BUG: kernel NULL pointer"];
    kernel_message(line).is_some_and(|message| signs.iter().any(|sign| message.contains(sign)))
}

/// The kernel's message in a line, after its time stamp: `[    1.234567] …`. Output of the command can stand before it, as both write
/// to the console.
fn kernel_message(line: &str) -> Option<&str> {
    line.match_indices('[').find_map(|(at, _)| {
        let (stamp, message) = line.get(at + 1..)?.split_once("] ")?;
        stamp.trim_start().parse::<f64>().is_ok().then_some(message)
    })
}

/// Output of the command: the lines between the two markers, or to the end of the log.
pub(crate) fn output_of_command(log: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = log
        .lines()
        .skip_while(|line| line.trim_end() != BEGIN)
        .skip(1)
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    if let Some(last) = lines.iter().rposition(|line| line.starts_with(RESULT)) {
        lines.truncate(last);
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_result_of_a_guest_that_powered_off_counts() {
        let log = "boot\r\n@@SNUG-BEGIN\r\n@@SNUG-RESULT 0\r\n\r\n@@SNUG-RESULT 101\r\n";
        assert_eq!(judge(log, End::PoweredOff), Verdict::Exited(101));
        assert_eq!(judge("@@SNUG-RESULT 0\n", End::PoweredOff), Verdict::Exited(0));
    }

    #[test]
    fn everything_else_fails() {
        let done = "@@SNUG-RESULT 0\r\n";
        assert_eq!(judge("boot\n", End::PoweredOff), Verdict::NoResult);
        assert_eq!(judge("@@SNUG-RESULT\n", End::PoweredOff), Verdict::NoResult);
        assert_eq!(judge(done, End::TimedOut), Verdict::TimedOut);
        assert_eq!(judge(done, End::Failed(Some(1))), Verdict::EmulatorFailed(Some(1)));
        let panicked = format!("[    1.5] Kernel panic - not syncing: Attempted to kill init!\r\n{done}");
        assert_eq!(
            judge(&panicked, End::PoweredOff),
            Verdict::Panicked("[    1.5] Kernel panic - not syncing: Attempted to kill init!".into())
        );
        let oopsed = format!("[   12.000001] Oops: 0000 [#1] PREEMPT SMP\n{done}");
        assert!(matches!(judge(&oopsed, End::PoweredOff), Verdict::Panicked(_)));
        let after_a_name = format!("test a_name ... {oopsed}");
        assert!(matches!(judge(&after_a_name, End::PoweredOff), Verdict::Panicked(_)));
    }

    #[test]
    fn panics_in_command_output_are_ignored() {
        let log = "test survives_Oops: ok\n@@SNUG-RESULT 0\n";
        assert_eq!(judge(log, End::PoweredOff), Verdict::Exited(0));
    }

    #[test]
    fn the_output_of_the_command_is_between_the_markers() {
        let log =
            "boot\r\n@@SNUG-BEGIN\r\none\r\ntwo\r\n\r\n@@SNUG-RESULT 0\r\n[ 3.0] reboot: Power down\r\n";
        assert_eq!(output_of_command(log), ["one", "two", ""]);
        assert_eq!(output_of_command("boot\n@@SNUG-BEGIN\nhalf"), ["half"]);
        assert!(output_of_command("boot\n").is_empty());
    }

    proptest! {
        #[test]
        fn no_log_panics_and_none_without_a_result_passes(log in "([a-z \\[\\]0-9.]{0,10}(Oops: )?\r?\n){0,6}") {
            prop_assert_ne!(judge(&log, End::PoweredOff), Verdict::Exited(0));
            let _ = output_of_command(&log);
        }
    }
}
