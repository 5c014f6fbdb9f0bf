//! The pause program of pod sandboxes in tests: sleeps until it is killed.

fn main() {
    loop {
        std::thread::park();
    }
}
