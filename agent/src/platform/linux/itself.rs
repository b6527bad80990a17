//! What this process asks the kernel for itself.

use std::ffi::CStr;

/// Asks for small pages only, for this process and those it starts.
///
/// The allocator asks for huge ones, and every thread's first bytes then cost 2 MiB: writing an image with eight threads
/// took 60 MiB instead of 30, and was no faster. A kernel that cannot do this works all the same.
pub fn use_small_pages() {
    if let Err(errno) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!("asking for small pages: {errno}");
    }
}

/// The name by which `ps` and `top` show this process (15 bytes at most): started as `/proc/self/exe`, it would be `exe`.
pub fn be_called(name: &CStr) {
    if let Err(errno) = nix::sys::prctl::set_name(name) {
        tracing::debug!("naming this process {name:?}: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_called_as_it_said() {
        std::thread::spawn(|| {
            be_called(c"ferric-devices");
            let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
            assert_eq!(name, "ferric-devices\n");
        })
        .join()
        .unwrap();
    }
}
