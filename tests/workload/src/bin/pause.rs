//! What a pod's sandbox runs in tests: nothing, until it is killed.

fn main() {
    loop {
        std::thread::park();
    }
}
