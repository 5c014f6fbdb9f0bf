//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Repeats the attempt until it returns a value.
///
/// # Panics
/// When there is no value after `longest`.
pub fn until<T>(what: &str, longest: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + longest;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {longest:?}");
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_until_something_is_there() {
        let mut attempts = 0;
        let found = until("three attempts", Duration::from_secs(10), || {
            attempts += 1;
            (attempts == 3).then_some(attempts)
        });
        assert_eq!(found, 3);
    }

    #[test]
    #[should_panic(expected = "a miracle: not within")]
    fn it_gives_up() {
        until("a miracle", Duration::from_millis(30), || None::<()>);
    }
}
