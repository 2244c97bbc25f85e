//! A file's data: chunks by page number, with holes between.
//!
//! Every method that makes something reserves its cost first and changes nothing where that fails,
//! but for [`Extents::write`], which then writes what fits. What is let go of is given back at
//! once; the chunks themselves are returned where they may be many, for the caller to drop outside
//! the lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use stratafs_core::Result;

use crate::charge::Account;
use crate::chunk::{Chunk, PAGE, PAGE_BYTES, build, chunk_cost, class};

/// The data of a file. Bytes that a chunk lacks, and pages without one, read as zeros.
#[derive(Default)]
pub(crate) struct Extents {
    /// Page 0, apart from the rest: most files have no other, and a tree for it would cost more
    /// than the data.
    first: Option<Chunk>,
    rest: BTreeMap<u64, Chunk>,
    /// The sum of the chunks' lengths.
    stored: u64,
}

/// Chunks taken out of a file: their storage is given back, their memory goes with them.
#[must_use]
#[derive(Default)]
pub(crate) struct Freed {
    _first: Option<Chunk>,
    _rest: BTreeMap<u64, Chunk>,
}

/// A stretch of a file, to be handed on without a lock.
pub(crate) enum Piece {
    /// These bytes of a chunk.
    Data(Chunk, usize, usize),
    /// This many zeros.
    Zeros(u64),
}

/// The page that `offset` is in, and where in it.
fn split(offset: u64) -> (u64, usize) {
    (offset / PAGE_BYTES, (offset % PAGE_BYTES) as usize)
}

impl Extents {
    /// The bytes that are stored, whole chunks counted.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// What all chunks are charged.
    pub(crate) fn charged(&self) -> u64 {
        self.chunks().map(|(_, chunk)| chunk_cost(chunk.len())).sum()
    }

    fn chunks(&self) -> impl Iterator<Item = (u64, &Chunk)> {
        self.range(0, u64::MAX)
    }

    /// The chunks of pages `from` to `to`, the latter not included, in order.
    fn range(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Chunk)> {
        let first = self.first.as_ref().filter(|_| from == 0 && to > 0).map(|chunk| (0, chunk));
        let rest = self.rest.range(from.max(1)..to.max(from).max(1));
        first.into_iter().chain(rest.map(|(page, chunk)| (*page, chunk)))
    }

    fn get(&self, page: u64) -> Option<&Chunk> {
        if page == 0 { self.first.as_ref() } else { self.rest.get(&page) }
    }

    fn get_mut(&mut self, page: u64) -> Option<&mut Chunk> {
        if page == 0 { self.first.as_mut() } else { self.rest.get_mut(&page) }
    }

    /// Puts `chunk` at `page`; its cost was reserved, and that of what was there is given back by
    /// the caller.
    fn put(&mut self, page: u64, chunk: Chunk) -> Option<Chunk> {
        self.stored += chunk.len() as u64;
        let old = if page == 0 { self.first.replace(chunk) } else { self.rest.insert(page, chunk) };
        self.stored -= old.as_ref().map_or(0, |old| old.len() as u64);
        old
    }

    fn take(&mut self, page: u64) -> Option<Chunk> {
        let old = if page == 0 { self.first.take() } else { self.rest.remove(&page) };
        self.stored -= old.as_ref().map_or(0, |old| old.len() as u64);
        old
    }

    /// Puts `chunk` at `page`, reserving and giving back what that makes of a difference.
    fn exchange(&mut self, account: &Account, page: u64, chunk: Chunk) -> Result<Option<Chunk>> {
        let new_cost = chunk_cost(chunk.len());
        let old_cost = self.get(page).map_or(0, |old| chunk_cost(old.len()));
        account.reserve(new_cost.saturating_sub(old_cost))?;
        let old = self.put(page, chunk);
        account.give_back(old_cost.saturating_sub(new_cost));
        Ok(old)
    }

    /// Writes `data` at `offset`; both were checked to fit a file. Says how much was written:
    /// less than all only where the account is full.
    ///
    /// # Errors
    /// `ENOSPC`: not one byte fits.
    pub(crate) fn write(&mut self, account: &Account, offset: u64, data: &[u8]) -> Result<usize> {
        let mut done = 0;
        while done < data.len() {
            let (page, at) = split(offset + done as u64);
            let part = &data[done..data.len().min(done + PAGE - at)];
            match self.write_in_page(account, page, at, part) {
                Ok(()) => done += part.len(),
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write_in_page(
        &mut self,
        account: &Account,
        page: u64,
        at: usize,
        data: &[u8],
    ) -> Result<()> {
        let end = at + data.len();
        if let Some(chunk) = self.get_mut(page).filter(|chunk| chunk.len() >= end) {
            match Arc::get_mut(chunk) {
                Some(bytes) => bytes[at..end].copy_from_slice(data),
                // Shared: with another file, or with a reader that is about to hand it on.
                None => *chunk = build(chunk, at, data),
            }
            return Ok(());
        }
        let old_len = self.get(page).map_or(0, |chunk| chunk.len());
        let old_cost = self.get(page).map_or(0, |chunk| chunk_cost(chunk.len()));
        account.reserve(chunk_cost(class(end.max(old_len))) - old_cost)?;
        let old: &[u8] = self.get(page).map_or(&[], |chunk| chunk);
        let chunk = build(old, at, data);
        drop(self.put(page, chunk));
        Ok(())
    }

    /// Collects what lies from `offset` to `end` into `pieces`, as much as there is room for, and
    /// says up to where that is.
    pub(crate) fn gather(&self, offset: u64, end: u64, pieces: &mut Pieces) -> u64 {
        let mut at = offset;
        for (page, chunk) in self.range(offset / PAGE_BYTES, end.div_ceil(PAGE_BYTES)) {
            let start = page * PAGE_BYTES;
            if at < start && !pieces.push(Piece::Zeros(start - at)) {
                return at;
            }
            at = at.max(start);
            let from = (at - start) as usize;
            let to = ((end - start).min(PAGE_BYTES)) as usize;
            if from < to.min(chunk.len()) {
                let to = to.min(chunk.len());
                if !pieces.push(Piece::Data(Arc::clone(chunk), from, to)) {
                    return at;
                }
                at = start + to as u64;
            }
        }
        if at < end && pieces.push(Piece::Zeros(end - at)) { end } else { at }
    }

    /// The chunk of `page`, to be shared.
    pub(crate) fn share(&self, page: u64) -> Option<Chunk> {
        self.get(page).cloned()
    }

    /// The first page at or after `page` that has a chunk.
    pub(crate) fn next_page(&self, page: u64) -> Option<u64> {
        self.range(page, u64::MAX).next().map(|(page, _)| page)
    }

    /// Makes `page` another file's chunk, or a hole.
    ///
    /// # Errors
    /// `ENOSPC`: then nothing changed.
    pub(crate) fn install(
        &mut self,
        account: &Account,
        page: u64,
        chunk: Option<Chunk>,
    ) -> Result<()> {
        match chunk {
            Some(chunk) => drop(self.exchange(account, page, chunk)?),
            None => {
                if let Some(old) = self.take(page) {
                    account.give_back(chunk_cost(old.len()));
                }
            }
        }
        Ok(())
    }

    /// Drops everything at and after `size`, and leaves zeros beyond it.
    pub(crate) fn truncate(&mut self, account: &Account, size: u64) -> Freed {
        let (page, at) = split(size);
        let mut freed = Freed::default();
        let keep = if at == 0 { page } else { page + 1 };
        if keep == 0 {
            freed._first = self.first.take();
        }
        freed._rest = self.rest.split_off(&keep.max(1));
        let gone = freed._first.iter().chain(freed._rest.values());
        let (mut stored, mut cost) = (0, 0);
        for chunk in gone {
            stored += chunk.len() as u64;
            cost += chunk_cost(chunk.len());
        }
        self.stored -= stored;
        account.give_back(cost);
        if at != 0 {
            self.cut_page(account, page, at);
        }
        freed
    }

    /// Leaves the first `at` bytes of `page`, and zeros behind them.
    fn cut_page(&mut self, account: &Account, page: u64, at: usize) {
        let Some(chunk) = self.get(page).filter(|chunk| chunk.len() > at) else { return };
        let old_cost = chunk_cost(chunk.len());
        let shorter = build(&[], 0, &chunk[..at]);
        account.give_back(old_cost - chunk_cost(shorter.len()));
        drop(self.put(page, shorter));
    }

    /// Makes the bytes `from..to` of `page` zeros without changing its cost.
    fn zero_in_page(&mut self, page: u64, from: usize, to: usize) {
        let Some(chunk) = self.get_mut(page) else { return };
        let to = to.min(chunk.len());
        if from < to {
            Arc::make_mut(chunk)[from..to].fill(0);
        }
    }

    /// Zeros the parts of pages at the ends of `offset..end`, and gives the whole pages between.
    fn zero_edges(&mut self, offset: u64, end: u64) -> (u64, u64) {
        let (first, from) = split(offset);
        let (last, to) = split(end);
        if first == last {
            self.zero_in_page(first, from, to);
            return (first, first);
        }
        let mut whole = first;
        if from != 0 {
            self.zero_in_page(first, from, PAGE);
            whole += 1;
        }
        if to != 0 {
            self.zero_in_page(last, 0, to);
        }
        (whole, last)
    }

    /// Makes `offset..end` a hole: whole pages are freed, parts of pages zeroed.
    pub(crate) fn punch(&mut self, account: &Account, offset: u64, end: u64) -> Freed {
        let (from, to) = self.zero_edges(offset, end);
        self.cut_out(account, from, to)
    }

    /// Takes out the pages `from` to `to`, the latter not included.
    fn cut_out(&mut self, account: &Account, from: u64, to: u64) -> Freed {
        let mut freed = Freed::default();
        if from >= to {
            return freed;
        }
        if from == 0 {
            freed._first = self.first.take();
        }
        // One by one: splitting the tree and joining it again would rebuild all of it.
        while let Some(page) = self.rest.range(from.max(1)..to.max(1)).next().map(|(page, _)| *page)
        {
            if let Some(chunk) = self.rest.remove(&page) {
                freed._rest.insert(page, chunk);
            }
        }
        let (mut stored, mut cost) = (0, 0);
        for chunk in freed._first.iter().chain(freed._rest.values()) {
            stored += chunk.len() as u64;
            cost += chunk_cost(chunk.len());
        }
        self.stored -= stored;
        account.give_back(cost);
        freed
    }

    /// Gives each page of `offset..end` a chunk of full length, so that no write there can meet
    /// ENOSPC. New pages are `zeros`, shared until written. With `clear` the range reads as zeros
    /// after.
    ///
    /// # Errors
    /// `ENOSPC`: then nothing changed.
    pub(crate) fn allocate(
        &mut self,
        account: &Account,
        offset: u64,
        end: u64,
        zeros: &Chunk,
        clear: bool,
    ) -> Result<()> {
        let (from, to) = (offset / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
        let (mut present, mut short) = (0, 0);
        for (_, chunk) in self.range(from, to) {
            present += 1;
            short += chunk_cost(PAGE) - chunk_cost(chunk.len());
        }
        let missing = (to - from - present).saturating_mul(chunk_cost(PAGE));
        account.reserve(missing.saturating_add(short))?;
        for page in from..to {
            match self.get(page) {
                Some(chunk) if chunk.len() == PAGE => {}
                Some(chunk) => {
                    let mut full = [0; PAGE];
                    full[..chunk.len()].copy_from_slice(chunk);
                    drop(self.put(page, Arc::from(&full[..])));
                }
                None => drop(self.put(page, Arc::clone(zeros))),
            }
        }
        if clear {
            let (whole_from, whole_to) = self.zero_edges(offset, end);
            for page in whole_from..whole_to {
                drop(self.put(page, Arc::clone(zeros)));
            }
        }
        Ok(())
    }

    /// Copies what is shared in `offset..end`, so that it is this file's own.
    pub(crate) fn unshare(&mut self, offset: u64, end: u64) {
        let (from, to) = (offset / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
        if from == 0
            && let Some(first) = &mut self.first
        {
            Arc::make_mut(first);
        }
        for chunk in self.rest.range_mut(from.max(1)..to.max(1)).map(|(_, chunk)| chunk) {
            Arc::make_mut(chunk);
        }
    }

    /// Cuts the pages `from` to `to` out, and moves what follows down.
    pub(crate) fn collapse(&mut self, account: &Account, from: u64, to: u64) -> Freed {
        let freed = self.cut_out(account, from, to);
        let moved = self.rest.split_off(&to.max(1));
        for (page, chunk) in moved {
            let page = page - (to - from);
            if page == 0 { self.first = Some(chunk) } else { drop(self.rest.insert(page, chunk)) }
        }
        freed
    }

    /// Moves what is at and after page `at` up by `by` pages.
    pub(crate) fn insert(&mut self, at: u64, by: u64) {
        if by == 0 {
            return;
        }
        let moved = self.rest.split_off(&at.max(1));
        let first = if at == 0 { self.first.take() } else { None };
        let moved = first.map(|chunk| (0, chunk)).into_iter().chain(moved);
        self.rest.extend(moved.map(|(page, chunk)| (page + by, chunk)));
    }

    /// The first offset at or after `offset` that is in a page with a chunk.
    pub(crate) fn next_data(&self, offset: u64) -> Option<u64> {
        self.next_page(offset / PAGE_BYTES).map(|page| offset.max(page * PAGE_BYTES))
    }

    /// The first offset at or after `offset` that is in a page without a chunk.
    pub(crate) fn next_hole(&self, offset: u64) -> u64 {
        let start = offset / PAGE_BYTES;
        let mut page = start;
        for (present, _) in self.range(start, u64::MAX) {
            if present != page {
                break;
            }
            page += 1;
        }
        if page == start { offset } else { page * PAGE_BYTES }
    }
}

/// How many pieces are handed on at a time: 64 KiB of full pages.
const BATCH: usize = 16;

/// A few pieces, without an allocation.
#[derive(Default)]
pub(crate) struct Pieces {
    pieces: [Option<Piece>; BATCH],
    len: usize,
}

impl Pieces {
    fn push(&mut self, piece: Piece) -> bool {
        let Some(place) = self.pieces.get_mut(self.len) else { return false };
        *place = Some(piece);
        self.len += 1;
        true
    }

    /// The pieces, in order.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Piece> {
        self.pieces.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests;
