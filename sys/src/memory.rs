//! Giving memory back: malloc_trim(3).
#![allow(unsafe_code)]

/// Returns free heap pages to the kernel. glibc keeps up to 128 KiB for later by itself, which is much for a process that
/// is mostly idle and exists a hundred times. With another C library this does nothing.
pub fn release_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks and touches only memory that nothing uses.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_leaves_the_process() {
        let resident = || -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse().unwrap()
        };
        // Small pieces come from the heap, not from mappings of their own; the last one keeps the heap's end in place.
        let mut pieces: Vec<Vec<u8>> = (0..4000).map(|_| vec![1; 4000]).collect();
        let last = pieces.pop();
        drop(pieces);
        let before = resident();
        release_free();
        let after = resident();
        assert!(after + 1000 < before, "{before} pages, then {after}");
        drop(last);
    }
}
