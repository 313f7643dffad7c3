//! Memory that a burst leaves behind.

use std::{thread, time::Duration};

/// How often pages that are free are given back. A burst has then been over for some seconds; what it costs is a thread that
/// ends at once.
const EVERY: Duration = Duration::from_secs(10);

/// Has the allocator give free pages back to the system, for ever.
///
/// mimalloc does so when a thread frees the last of a page, for pages that have been free for a second by then, and when a
/// thread ends. Who has nothing to do after a burst frees nothing, and would keep what the burst took.
pub(super) async fn give_back() {
    loop {
        tokio::time::sleep(EVERY).await;
        // Without a thread there is no memory to spare either: the next time, then.
        let _ = thread::Builder::new()
            .name("warifu-memory".to_owned())
            .spawn(|| ());
    }
}
