//! Puts the segments of one direction in order.

use super::Segment;

/// Captured bytes that are kept, from the first on; NEWKEYS ends at byte 7177 or before (measured,
/// diffie-hellman-group18).
pub(super) const WINDOW: usize = 8 * 1024;
/// Runs of captured bytes that are kept: what 16 gaps leave.
const MAX_RUNS: usize = 17;
/// Sizes that are kept, as many as the packet program tells after its bytes have run out.
const MAX_PIECES: usize = 64;
/// Past this offset no earlier byte can still be on its way.
const SETTLED: u32 = 64 * 1024;

/// One direction of a connection: its bytes, and the sizes and times of its segments.
///
/// Offsets count from the lowest sequence number seen, which falls as long as earlier segments
/// arrive and it is not [fixed](Stream::fix_base). Of bytes that arrive twice the first stay.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Sequence number of offset 0, once anything was seen.
    base: u32,
    /// The sequence number below which there is no byte of the connection.
    floor: Option<u32>,
    /// The lowest sequence number seen, whatever was discarded.
    first: Option<u32>,
    buffer: Vec<u8>,
    /// Start and end of each run of bytes that are there: ascending, disjoint, not adjacent.
    runs: Vec<(usize, usize)>,
    /// Where the lowest bytes begin that passed without being captured.
    hole: Option<u32>,
    pieces: Vec<Piece>,
    /// End of what was left out of the pieces.
    more_end: Option<u32>,
    /// The longest segment as long as the bytes were kept; more than 16 bits can say is that much.
    longest: u16,
    is_settled: bool,
    is_released: bool,
    /// Bytes arrived again and were others: which of them the other end took in is not known.
    is_ambiguous: bool,
}

/// Payload that one segment was the first to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Offset of its first byte.
    pub(super) start: u32,
    /// Offset past its last byte.
    pub(super) end: u32,
    /// Whether its sender pushed its last byte.
    pub(super) is_pushed: bool,
    /// When it passed, nanoseconds.
    pub(super) time_ns: u64,
}

/// What a segment changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Sizes at most.
    None,
    /// Bytes arrived.
    Bytes,
    /// Bytes arrived ahead of the first: every offset moved.
    Base,
}

// === impl Stream ===

impl Stream {
    /// Takes in a segment of this direction.
    pub(super) fn segment(&mut self, segment: &Segment<'_>) -> Change {
        // What is below the floor the other end discards.
        let below = self.floor.map_or(0, |floor| {
            floor.wrapping_sub(segment.sequence).cast_signed().max(0)
        });
        if segment.length <= below.unsigned_abs() {
            return Change::None;
        }
        let segment = &Segment {
            sequence: segment.sequence.wrapping_add_signed(below),
            length: segment.length - below.unsigned_abs(),
            bytes: segment
                .bytes
                .get(below.unsigned_abs() as usize..)
                .unwrap_or_default(),
            ..*segment
        };
        if self.first.is_none() {
            (self.base, self.first) = (segment.sequence, Some(segment.sequence));
        }
        let mut change = Change::Bytes;
        let offset = segment.sequence.wrapping_sub(self.base).cast_signed();
        let (start, skip) = if offset >= 0 {
            (offset.unsigned_abs(), 0)
        } else if self.is_settled || offset.unsigned_abs() as usize > WINDOW {
            // A retransmission that brings something new at its end, or something stale.
            (0, offset.unsigned_abs())
        } else {
            self.lower(segment.sequence, offset.unsigned_abs());
            change = Change::Base;
            (0, 0)
        };
        let Some(length) = segment
            .length
            .checked_sub(skip)
            .filter(|length| *length > 0)
        else {
            return Change::None;
        };
        let end = start.saturating_add(length);
        self.is_settled |= end > SETTLED;
        if !self.is_released {
            let length = u16::try_from(segment.length).unwrap_or(u16::MAX);
            self.longest = self.longest.max(length);
        }
        self.record(Piece {
            start,
            end,
            is_pushed: segment.is_pushed,
            time_ns: segment.time_ns,
        });
        let captured = segment.bytes.len().min(segment.length as usize);
        let bytes = segment
            .bytes
            .get(skip as usize..captured)
            .unwrap_or_default();
        if bytes.len() < length as usize {
            // Fewer than the length, which is a u32.
            let captured = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let hole = start.saturating_add(captured);
            self.hole = Some(self.hole.map_or(hole, |other| other.min(hole)));
        }
        if !self.is_released {
            self.fill(start as usize, bytes);
        }
        change
    }

    /// Nothing of the connection precedes this sequence number; what was said first stays.
    pub(super) fn begins_at(&mut self, sequence: u32) {
        self.floor.get_or_insert(sequence);
    }

    /// Nothing that precedes what was seen is accepted any more.
    pub(super) const fn fix_base(&mut self) {
        self.is_settled = true;
    }

    /// The lowest sequence number seen.
    pub(super) const fn first(&self) -> Option<u32> {
        self.first
    }

    /// The bytes from the first on, up to the first gap.
    pub(super) fn bytes(&self) -> &[u8] {
        match self.runs.first() {
            Some((0, end)) => self.buffer.get(..*end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// `N` bytes from `offset`, if they are there.
    pub(super) fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N)?;
        let is_there = self.runs.iter().any(|run| run.0 <= offset && end <= run.1);
        let bytes = self.buffer.get(offset..end).filter(|_| is_there)?;
        bytes.try_into().ok()
    }

    /// Whether [`Self::bytes`] will not grow: the next byte passed without being captured, or is
    /// past what is kept.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut_at(self.bytes().len())
    }

    /// Whether the byte at `offset`, or one before, passed without being captured.
    pub(super) fn is_cut_at(&self, offset: usize) -> bool {
        offset >= WINDOW || self.hole.is_some_and(|hole| hole as usize <= offset)
    }

    /// Whether bytes arrived twice that were not the same, as long as they were kept.
    pub(super) const fn is_ambiguous(&self) -> bool {
        self.is_ambiguous
    }

    /// Whether nothing is known to be missing: no gap, and no bytes without their contents.
    pub(super) fn is_whole(&self) -> bool {
        self.hole.is_none() && self.runs.len() <= 1
    }

    /// Sizes and times, ascending by offset.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Payload bytes of the longest segment until the bytes were [released](Self::release).
    pub(super) fn longest(&self) -> u32 {
        self.longest.into()
    }

    /// Until when [`Self::pieces`] has all that passed, nanoseconds; 0 where something is missing.
    pub(super) fn known_until_ns(&self) -> u64 {
        let starts = self.pieces.iter().map(|piece| piece.start);
        let ends = self.pieces.iter().map(|piece| piece.end);
        let is_gapless = starts.eq(std::iter::once(0).chain(ends).take(self.pieces.len()));
        match (is_gapless, self.pieces.last()) {
            (false, _) => 0,
            (true, Some(last)) if self.has_more() => last.time_ns,
            (true, _) => u64::MAX,
        }
    }

    /// Whether more segments passed than [`Self::pieces`] has.
    pub(super) fn has_more(&self) -> bool {
        self.more_end.is_some()
    }

    /// Forgets the sizes of what ends before `offset`.
    pub(super) fn forget_pieces(&mut self, offset: usize) {
        self.pieces.retain(|piece| piece.end as usize >= offset);
        self.more_end = self.more_end.filter(|end| *end as usize > offset);
    }

    /// Drops everything before `offset`, which becomes 0; nothing earlier is accepted any more. When the
    /// last of that passed, nanoseconds.
    pub(super) fn discard(&mut self, offset: usize) -> Option<u64> {
        let by = u32::try_from(offset)
            .ok()
            .filter(|_| self.first.is_some())?;
        let last = self
            .pieces
            .iter()
            .find(|piece| piece.start < by && by <= piece.end);
        let time_ns = last.map(|piece| piece.time_ns);
        self.base = self.base.wrapping_add(by);
        self.is_settled = true;
        self.buffer.drain(..offset.min(self.buffer.len()));
        self.buffer.shrink_to_fit();
        self.runs.retain(|run| run.1 > offset);
        for run in &mut self.runs {
            *run = (run.0.saturating_sub(offset), run.1 - offset);
        }
        self.hole = self.hole.map(|hole| hole.saturating_sub(by));
        self.forget_pieces(offset + 1);
        for piece in &mut self.pieces {
            piece.start = piece.start.saturating_sub(by);
            piece.end -= by;
        }
        self.more_end = self.more_end.map(|end| end.saturating_sub(by));
        time_ns
    }

    /// Drops the bytes for good.
    pub(super) fn release(&mut self) {
        self.buffer = Vec::new();
        self.runs = Vec::new();
        self.is_released = true;
        self.is_settled = true;
    }

    /// Drops everything for good, sizes too.
    pub(super) fn clear(&mut self) {
        self.release();
        self.pieces = Vec::new();
    }

    /// Bytes on the heap.
    pub(super) fn bytes_held(&self) -> usize {
        self.buffer.capacity()
            + self.runs.capacity() * size_of::<(usize, usize)>()
            + self.pieces.capacity() * size_of::<Piece>()
    }

    fn lower(&mut self, sequence: u32, by: u32) {
        (self.base, self.first) = (sequence, Some(sequence));
        let shift = by as usize;
        let keep = self.buffer.len().min(WINDOW - shift.min(WINDOW));
        self.buffer.truncate(keep);
        let mut buffer = Vec::with_capacity(shift + keep);
        buffer.resize(shift, 0);
        buffer.append(&mut self.buffer);
        self.buffer = buffer;
        for run in &mut self.runs {
            *run = (run.0 + shift, (run.1 + shift).min(WINDOW));
        }
        self.runs.retain(|run| run.0 < run.1);
        self.hole = self.hole.map(|hole| hole.saturating_add(by));
        for piece in &mut self.pieces {
            piece.start = piece.start.saturating_add(by);
            piece.end = piece.end.saturating_add(by);
        }
        self.more_end = self.more_end.map(|end| end.saturating_add(by));
    }

    /// Copies what is not there yet.
    fn fill(&mut self, start: usize, bytes: &[u8]) {
        let end = start.saturating_add(bytes.len()).min(WINDOW);
        if start >= end {
            return;
        }
        self.reserve(end);
        let mut from = start;
        let (mut first, mut last) = (start, end);
        let runs = std::mem::take(&mut self.runs);
        let (touched, mut runs): (Vec<_>, Vec<_>) = runs
            .into_iter()
            .partition(|run| run.0 <= end && start <= run.1);
        for run in touched {
            let (low, high) = (run.0.max(start), run.1.min(end));
            let again = bytes.get(low - start..high.saturating_sub(start));
            self.is_ambiguous |= again != self.buffer.get(low..high);
            self.copy(start, bytes, from, run.0.min(end));
            from = from.max(run.1);
            first = first.min(run.0);
            last = last.max(run.1);
        }
        self.copy(start, bytes, from, end);
        let at = runs.partition_point(|run| run.0 < first);
        runs.insert(at, (first, last));
        runs.truncate(MAX_RUNS);
        self.runs = runs;
    }

    /// `bytes`, which begin at `start`, into `from..to`.
    fn copy(&mut self, start: usize, bytes: &[u8], from: usize, to: usize) {
        if from >= to {
            return;
        }
        let source = bytes.get(from - start..to - start);
        if let (Some(target), Some(source)) = (self.buffer.get_mut(from..to), source) {
            target.copy_from_slice(source);
        }
    }

    /// Room for `end` bytes; never more than the window, which doubling would exceed.
    fn reserve(&mut self, end: usize) {
        if self.buffer.len() >= end {
            return;
        }
        if self.buffer.capacity() < end {
            let capacity = (self.buffer.capacity() * 2).clamp(end, WINDOW.max(end));
            self.buffer.reserve_exact(capacity - self.buffer.len());
        }
        self.buffer.resize(end, 0);
    }

    /// Notes the parts of a segment that no other carried before.
    fn record(&mut self, whole: Piece) {
        let Piece { start, end, .. } = whole;
        let mut at = start;
        let mut news = Vec::new();
        for piece in &mut self.pieces {
            if piece.end <= start || piece.start >= end {
                continue;
            }
            if piece.start == start && piece.end == end {
                piece.time_ns = piece.time_ns.min(whole.time_ns);
                piece.is_pushed |= whole.is_pushed;
            }
            if at < piece.start {
                news.push((at, piece.start));
            }
            at = at.max(piece.end);
        }
        if at < end {
            news.push((at, end));
        }
        for (start, end) in news {
            let is_pushed = whole.is_pushed && end == whole.end;
            let index = self.pieces.partition_point(|piece| piece.start < start);
            if self.pieces.len() == MAX_PIECES {
                // One more for a moment; doubling would be for nothing.
                self.pieces.reserve_exact(1);
            }
            self.pieces.insert(
                index,
                Piece {
                    start,
                    end,
                    is_pushed,
                    ..whole
                },
            );
            if self.pieces.len() > MAX_PIECES
                && let Some(last) = self.pieces.pop()
            {
                self.more_end = self.more_end.max(Some(last.end));
            }
        }
    }
}
