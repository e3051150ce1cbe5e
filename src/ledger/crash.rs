//! Ends the process between two statements of a change, for the test that nothing half done is left.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// After how many statements the process shall die.
pub(super) const ABORT_AT: &str = "NBA_TEST_ABORT_AT";

static PASSED: AtomicU64 = AtomicU64::new(0);

/// Called after every statement.
pub(super) fn point() {
    static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
    let limit = LIMIT.get_or_init(|| std::env::var(ABORT_AT).ok()?.parse().ok());
    if limit.is_some_and(|limit| PASSED.fetch_add(1, Ordering::SeqCst) + 1 == limit) {
        std::process::abort();
    }
}
