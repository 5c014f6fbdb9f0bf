//! `docs/kernels.md` is made of what guests have reported.

use std::fs;

use snug_tests::kernels::{page, recorded};

use crate::root;

#[test]
fn the_page_has_what_was_recorded() {
    let path = root().join("docs/kernels.md");
    let page = page(&recorded());
    if std::env::var_os("SNUG_BLESS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == page, "docs/kernels.md is not what was recorded: run this test with SNUG_BLESS=1");
}
