//! Where flows are kept, see [`monitor_common::abi::Place`].
//!
//! A flow stays in one place for all its life, so that nothing has to be moved or added up. Places
//! are taken here and freed by userspace only, which waits until no program can still use one.

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    btf_maps::{Array, HashMap, Stack},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use monitor_common::abi::{
    Aside, Cold, DEFAULT_FLOWS4, DEFAULT_FLOWS6, FlowKey4, FlowKey6, Hot, NEAR, Place, PlaceKey,
    Reason, add_shared, split,
};

/// `BPF_F_MMAPABLE`: userspace reads the places where they are.
const MMAPABLE: usize = 1 << 10;

/// Flows over IPv4. Shared by all processors: a per-CPU map would be multiplied by the number of
/// *possible* ones.
///
/// # Minimum kernel version
/// 5.5 (memory that userspace can map).
#[btf_map]
static PLACES4: Array<Place<FlowKey4>, { DEFAULT_FLOWS4 as usize }, MMAPABLE> = Array::new();

/// Flows over IPv6.
#[btf_map]
static PLACES6: Array<Place<FlowKey6>, { DEFAULT_FLOWS6 as usize }, MMAPABLE> = Array::new();

/// What few packets touch of [`PLACES4`].
#[btf_map]
static ASIDE4: Array<Aside, { DEFAULT_FLOWS4 as usize }, MMAPABLE> = Array::new();

/// What few packets touch of [`PLACES6`].
#[btf_map]
static ASIDE6: Array<Aside, { DEFAULT_FLOWS6 as usize }, MMAPABLE> = Array::new();

/// Places of the IPv4 flows that have a spare one. Plain, not LRU: an LRU map evicts silently.
#[btf_map]
static FLOWS4: HashMap<FlowKey4, u32, { split(DEFAULT_FLOWS4).1 as usize }> = HashMap::new();

/// Places of the IPv6 flows that have a spare one.
#[btf_map]
static FLOWS6: HashMap<FlowKey6, u32, { split(DEFAULT_FLOWS6).1 as usize }> = HashMap::new();

/// Free spare places of [`PLACES4`].
#[btf_map]
static SPARE4: Stack<u32, { split(DEFAULT_FLOWS4).1 as usize }> = Stack::new();

/// Free spare places of [`PLACES6`].
#[btf_map]
static SPARE6: Stack<u32, { split(DEFAULT_FLOWS6).1 as usize }> = Stack::new();

/// Near places of [`PLACES4`]: a power of two, or 0 where all are spare.
#[unsafe(no_mangle)]
static NODEWATCH_NEAR4: Global<u32> = Global::new(split(DEFAULT_FLOWS4).0);

/// Near places of [`PLACES6`]: a power of two, or 0 where all are spare.
#[unsafe(no_mangle)]
static NODEWATCH_NEAR6: Global<u32> = Global::new(split(DEFAULT_FLOWS6).0);

/// No place: beyond every array.
const NOWHERE: u32 = u32::MAX;

/// How often a processor looks whether another one has taken a place meanwhile.
const PATIENCE: u32 = 4;

const E2BIG: i32 = -7;
const EEXIST: i32 = -17;

/// What most packets touch of an IPv4 flow that is in the first of its near places, as most are.
#[inline(always)]
pub(crate) fn near4(key: &FlowKey4) -> Option<*mut Hot> {
    let place = PLACES4.get_ptr_mut(key.near(NODEWATCH_NEAR4.load()))?;
    // SAFETY: a field of a live array element.
    holds(place, key).then(|| unsafe { &raw mut (*place).hot })
}

/// What most packets touch of an IPv6 flow that is in the first of its near places.
#[inline(always)]
pub(crate) fn near6(key: &FlowKey6) -> Option<*mut Hot> {
    let place = PLACES6.get_ptr_mut(key.near(NODEWATCH_NEAR6.load()))?;
    // SAFETY: as above.
    holds(place, key).then(|| unsafe { &raw mut (*place).hot })
}

/// The entry of an IPv4 flow.
#[inline(always)]
pub(crate) fn find4(key: &FlowKey4) -> Option<(*mut Hot, *mut Cold)> {
    let number = nodewatch_find4(key.word(0), key.word(1));
    let (place, aside) = (PLACES4.get_ptr_mut(number)?, ASIDE4.get_ptr_mut(number)?);
    // SAFETY: fields of live array elements.
    Some(unsafe { (&raw mut (*place).hot, &raw mut (*aside).cold) })
}

/// The entry of an IPv6 flow.
#[inline(always)]
pub(crate) fn find6(key: &FlowKey6) -> Option<(*mut Hot, *mut Cold)> {
    let number = nodewatch_find6(
        key.word(0),
        key.word(1),
        key.word(2),
        key.word(3),
        key.word(4),
    );
    let (place, aside) = (PLACES6.get_ptr_mut(number)?, ASIDE6.get_ptr_mut(number)?);
    // SAFETY: as above.
    Some(unsafe { (&raw mut (*place).hot, &raw mut (*aside).cold) })
}

/// Takes a place for an IPv4 flow; `false` if another processor has done so.
#[inline(always)]
pub(crate) fn take4(key: &FlowKey4) -> Result<bool, Reason> {
    taken(nodewatch_take4(key.word(0), key.word(1)))
}

/// Takes a place for an IPv6 flow; `false` if another processor has done so.
#[inline(always)]
pub(crate) fn take6(key: &FlowKey6) -> Result<bool, Reason> {
    taken(nodewatch_take6(
        key.word(0),
        key.word(1),
        key.word(2),
        key.word(3),
        key.word(4),
    ))
}

// Global functions (`BTF_FUNC_GLOBAL`), which the verifier checks once, not for each way to get
// there. They take numbers: pointers only from kernel 5.13.

/// The place of an IPv4 flow, [`NOWHERE`] if it has none, by the words of its key.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nodewatch_find4(first: u64, last: u64) -> u32 {
    let key = [first, last];
    let near = NODEWATCH_NEAR4.load();
    find(&key, near, |place| PLACES4.get_ptr_mut(place)).unwrap_or_else(|| {
        // SAFETY: the words are those of a key; the number is copied at once.
        unsafe {
            let flow = &*(&raw const key).cast::<FlowKey4>();
            FLOWS4.get(flow)
        }
        .copied()
        .unwrap_or(NOWHERE)
    })
}

/// The place of an IPv6 flow, as [`nodewatch_find4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nodewatch_find6(a: u64, b: u64, c: u64, d: u64, last: u64) -> u32 {
    let key = [a, b, c, d, last];
    let near = NODEWATCH_NEAR6.load();
    find(&key, near, |place| PLACES6.get_ptr_mut(place)).unwrap_or_else(|| {
        // SAFETY: as above.
        unsafe {
            let flow = &*(&raw const key).cast::<FlowKey6>();
            FLOWS6.get(flow)
        }
        .copied()
        .unwrap_or(NOWHERE)
    })
}

/// What became of an attempt to take a place.
const OURS: u32 = 0;
const THEIRS: u32 = 1;
const FULL: u32 = 2;
const FAILED: u32 = 3;

#[inline(always)]
fn taken(result: u32) -> Result<bool, Reason> {
    match result {
        OURS => Ok(true),
        THEIRS => Ok(false),
        FULL => Err(Reason::TableFull),
        _ => Err(Reason::InsertFailed),
    }
}

/// Takes a place for an IPv4 flow, by the words of its key: what became of it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nodewatch_take4(first: u64, last: u64) -> u32 {
    let key = [first, last];
    let near = NODEWATCH_NEAR4.load();
    if let Some(is_ours) = take_near(&key, near, |place| {
        Some((PLACES4.get_ptr_mut(place)?, ASIDE4.get_ptr_mut(place)?))
    }) {
        return if is_ours { OURS } else { THEIRS };
    }
    let spare = match SPARE4.pop() {
        Ok(Some(spare)) => spare,
        Ok(None) => return FULL,
        Err(_) => return FAILED,
    };
    // SAFETY: the words are those of a key.
    let flow = unsafe { &*(&raw const key).cast::<FlowKey4>() };
    let result = inserted(FLOWS4.insert(flow, spare, u64::from(BPF_NOEXIST)));
    if result == OURS {
        if let Some(place) = PLACES4.get_ptr_mut(spare) {
            publish(place, &key);
        }
    } else {
        let _ = SPARE4.push(spare, 0);
    }
    result
}

/// Takes a place for an IPv6 flow, as [`nodewatch_take4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nodewatch_take6(a: u64, b: u64, c: u64, d: u64, last: u64) -> u32 {
    let key = [a, b, c, d, last];
    let near = NODEWATCH_NEAR6.load();
    if let Some(is_ours) = take_near(&key, near, |place| {
        Some((PLACES6.get_ptr_mut(place)?, ASIDE6.get_ptr_mut(place)?))
    }) {
        return if is_ours { OURS } else { THEIRS };
    }
    let spare = match SPARE6.pop() {
        Ok(Some(spare)) => spare,
        Ok(None) => return FULL,
        Err(_) => return FAILED,
    };
    // SAFETY: as above.
    let flow = unsafe { &*(&raw const key).cast::<FlowKey6>() };
    let result = inserted(FLOWS6.insert(flow, spare, u64::from(BPF_NOEXIST)));
    if result == OURS {
        if let Some(place) = PLACES6.get_ptr_mut(spare) {
            publish(place, &key);
        }
    } else {
        let _ = SPARE6.push(spare, 0);
    }
    result
}

#[inline(always)]
fn inserted(result: Result<(), i32>) -> u32 {
    match result {
        Ok(()) => OURS,
        Err(EEXIST) => THEIRS,
        Err(E2BIG) => FULL,
        Err(_) => FAILED,
    }
}

/// Whether the place holds this flow. All words at once: each branch would be one more way that
/// the verifier follows.
#[inline(always)]
fn holds<F, K: PlaceKey>(place: *const Place<F>, key: &K) -> bool {
    let mut difference = 0;
    let mut index = 0;
    while index < K::WORDS {
        // SAFETY: a word of the key of a live array element; volatile, since others write it.
        let word = unsafe {
            (&raw const (*place).key)
                .cast::<u64>()
                .add(index)
                .read_volatile()
        };
        difference |= word ^ key.word(index);
        index += 1;
    }
    difference == 0
}

/// Writes the key, its last word last.
#[inline(always)]
fn publish<F, K: PlaceKey>(place: *mut Place<F>, key: &K) {
    let mut index = 0;
    while index < K::WORDS {
        // SAFETY: a word of the key of a live array element that this processor has taken;
        // volatile, so that the order stays.
        unsafe {
            (&raw mut (*place).key)
                .cast::<u64>()
                .add(index)
                .write_volatile(key.word(index));
        }
        index += 1;
    }
}

/// The near place that holds a flow.
#[inline(always)]
fn find<F, K: PlaceKey>(
    key: &K,
    near: u32,
    get: impl Fn(u32) -> Option<*mut Place<F>>,
) -> Option<u32> {
    if near == 0 {
        return None;
    }
    let first = key.near(near);
    let mut way = 0;
    while way < NEAR {
        if holds(get(first ^ way)?, key) {
            return Some(first ^ way);
        }
        way += 1;
    }
    None
}

/// Takes a near place; whether this processor did. `None` if there is none.
#[inline(always)]
fn take_near<F, K: PlaceKey>(
    key: &K,
    near: u32,
    get: impl Fn(u32) -> Option<(*mut Place<F>, *mut Aside)>,
) -> Option<bool> {
    if near == 0 {
        return None;
    }
    let first = key.near(near);
    let mut way = 0;
    while way < NEAR {
        let (place, aside) = get(first ^ way)?;
        if claim(place, aside, K::WORDS - 1) {
            publish(place, key);
            return Some(true);
        }
        if holds(place, key) {
            return Some(false);
        }
        way += 1;
    }
    None
}

/// Takes a free place, or waits until another processor that does so has told its key.
#[inline(always)]
fn claim<F>(place: *mut Place<F>, aside: *mut Aside, last: usize) -> bool {
    // SAFETY: words of live array elements.
    let (word, claims) = unsafe {
        (
            (&raw const (*place).key).cast::<u64>().add(last),
            &raw mut (*aside).claims,
        )
    };
    // SAFETY: as above; volatile, since other processors write it.
    let is_taken = || unsafe { word.read_volatile() != 0 };
    if is_taken() {
        return false;
    }
    // SAFETY: as above.
    if unsafe { claims.read_volatile() } == 0 {
        // Of those who add at once, at most one reads 1: a word has one order of changes.
        // SAFETY: as above; all writers of a place that is not taken add.
        let count = unsafe {
            add_shared(claims, 1);
            claims.read_volatile()
        };
        if count == 1 {
            return true;
        }
    }
    let mut patience = PATIENCE;
    while patience > 0 && !is_taken() {
        // Reading the clock takes as long as taking a place.
        // SAFETY: the helper takes no arguments.
        unsafe { bpf_ktime_get_ns() };
        patience -= 1;
    }
    false
}
