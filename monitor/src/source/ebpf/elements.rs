//! An array of the kernel's in this process's memory, as far as it is needed: what is mapped of it is
//! resident at once.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::{self, NonNull},
};

use aya::maps::MapData as Map;

/// The least that is mapped at a time, in bytes: a multiple of every page size.
const STEP: usize = 256 * 1024;

/// An array of elements `T`.
pub(super) struct Elements<T> {
    map: Map,
    /// Address space for all of them.
    memory: NonNull<u8>,
    /// Bytes of it, whole pages; only what is mapped once mapping more has failed.
    length: usize,
    /// How many of them are mapped.
    mapped: usize,
    of: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway, and only its address is handed out.
unsafe impl<T: Send> Send for Elements<T> {}

// === impl Elements ===

impl<T> Elements<T> {
    /// Reserves room for `count` elements of `map`, at least one.
    pub(super) fn new(map: Map, count: u32) -> io::Result<Self> {
        // SAFETY: a question without arguments.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(io::Error::other)?;
        let length = (size_of::<T>() * count as usize).next_multiple_of(page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let memory = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            map,
            memory: NonNull::new(memory.cast()).expect("a mapping is not at address zero"),
            length,
            mapped: 0,
            of: PhantomData,
        })
    }

    /// Maps the first `count` elements, those that are not yet.
    pub(super) fn reach(&mut self, count: u32) -> io::Result<()> {
        let wanted = size_of::<T>() * count as usize;
        if wanted <= self.mapped {
            return Ok(());
        }
        if wanted > self.length {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        let end = wanted.next_multiple_of(STEP).min(self.length);
        let offset = libc::off_t::try_from(self.mapped).map_err(io::Error::other)?;
        // SAFETY: in place of a part of the reservation made in `new`, to which nothing refers yet.
        let mapped = unsafe {
            libc::mmap(
                self.memory.as_ptr().add(self.mapped).cast(),
                end - self.mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                self.map.fd().as_fd().as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // Older kernels have unmapped the place by then, and something else may come to be there.
            self.length = self.mapped;
            return Err(error);
        }
        self.mapped = end;
        Ok(())
    }

    /// The element of a number, which is mapped.
    pub(super) fn at(&self, index: u32) -> *mut T {
        let offset = size_of::<T>() * index as usize;
        assert!(offset + size_of::<T>() <= self.mapped, "a mapped element");
        // SAFETY: within the mapping, by the check above.
        let element = unsafe { self.memory.as_ptr().add(offset) };
        // A multiple of the size, from a page on: aligned.
        element.cast()
    }
}

impl<T> Drop for Elements<T> {
    fn drop(&mut self) {
        // SAFETY: the reservation made in `new`; nothing borrows from it any longer.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length.max(self.mapped)) };
    }
}
