//! The tests of the parent module.

use super::*;
use crate::chunk::zero_page;

fn account() -> Account {
    Account::new(1 << 24, 0)
}

fn content(extents: &Extents, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = from;
    while at < to {
        let mut pieces = Pieces::default();
        at = extents.gather(at, to, &mut pieces);
        for piece in pieces.into_pieces() {
            match piece {
                Piece::Data(chunk, from, to) => bytes.extend_from_slice(&chunk[from..to]),
                Piece::Zeros(len) => bytes.resize(bytes.len() + len as usize, 0),
            }
        }
    }
    bytes
}

/// Checks that the account and the counts agree with the chunks.
#[track_caller]
fn check(extents: &Extents, account: &Account) {
    let stored: u64 = extents.chunks().map(|(_, chunk)| chunk.len() as u64).sum();
    assert_eq!(extents.stored(), stored);
    assert_eq!(extents.charged(), account.used());
}

#[test]
fn random_operations_agree_with_a_plain_vector() {
    let account = account();
    let zeros = zero_page();
    let mut extents = Extents::default();
    const LEN: usize = 40 * PAGE;
    let mut plain = vec![0_u8; LEN];
    let mut seed = 12345_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    for step in 0..20_000 {
        let from = random(LEN);
        let to = from + random((LEN - from).min(3 * PAGE));
        let pages = (from / PAGE, to / PAGE);
        match random(9) {
            0..=2 => {
                let data: Vec<u8> = (from..to).map(|i| (i + step) as u8).collect();
                assert_eq!(extents.write(&account, from as u64, &data), Ok(data.len()));
                plain[from..to].copy_from_slice(&data);
            }
            3 => {
                drop(extents.punch(&account, from as u64, to as u64));
                plain[from..to].fill(0);
            }
            4 if random(10) == 0 => {
                drop(extents.truncate(&account, from as u64));
                plain[from..].fill(0);
            }
            5 => {
                let clear = random(2) == 0;
                let range = (from as u64, to.max(from + 1) as u64);
                extents.allocate(&account, range.0, range.1, &zeros, clear).unwrap();
                if clear {
                    plain[range.0 as usize..range.1 as usize].fill(0);
                }
            }
            6 => {
                let len = (pages.1 - pages.0) * PAGE;
                drop(extents.collapse(&account, pages.0 as u64, pages.1 as u64));
                plain.drain(pages.0 * PAGE..pages.0 * PAGE + len);
                plain.resize(LEN, 0);
            }
            7 => {
                let by = pages.1 - pages.0;
                drop(extents.truncate(&account, (LEN - by * PAGE) as u64));
                plain.truncate(LEN - by * PAGE);
                extents.insert(pages.0.min(39 - by) as u64, by as u64);
                let at = pages.0.min(39 - by) * PAGE;
                plain.splice(at..at, std::iter::repeat_n(0, by * PAGE));
            }
            _ => {
                extents.unshare(from as u64, to as u64);
                let chunk = extents.share(pages.0 as u64);
                let to_page = random(40);
                extents.install(&account, to_page as u64, chunk).unwrap();
                let page = plain[pages.0 * PAGE..][..PAGE].to_vec();
                plain[to_page * PAGE..][..PAGE].copy_from_slice(&page);
            }
        }
        check(&extents, &account);
        if step % 50 == 0 {
            assert!(content(&extents, 0, LEN as u64) == plain, "step {step}");
        }
    }
    drop(extents.truncate(&account, 0));
    assert_eq!(account.used(), 0);
}

#[test]
fn write_beyond_the_capacity_writes_what_fits() {
    let account = Account::new(chunk_cost(PAGE) * 2, 0);
    let mut extents = Extents::default();
    assert_eq!(extents.write(&account, 100, &[7; 4 * PAGE]), Ok(2 * PAGE - 100));
    assert!(extents.write(&account, 4 * PAGE_BYTES, b"x").is_err());
    assert_eq!(extents.write(&account, 0, b"x"), Ok(1), "what is there may be written again");
    check(&extents, &account);
}

#[test]
fn write_to_a_shared_page_leaves_the_other_as_it_was() {
    let account = account();
    let (mut a, mut b) = (Extents::default(), Extents::default());
    a.write(&account, 0, &[1; PAGE]).unwrap();
    b.install(&account, 3, a.share(0)).unwrap();
    a.write(&account, 0, &[2; 10]).unwrap();
    assert_eq!(content(&b, 3 * PAGE_BYTES, 4 * PAGE_BYTES), [1; PAGE]);
    assert_eq!(account.used(), 2 * chunk_cost(PAGE), "each pays for it");
}

#[test]
fn allocate_beyond_the_capacity_changes_nothing() {
    let account = Account::new(chunk_cost(PAGE) * 2, 0);
    let mut extents = Extents::default();
    let zeros = zero_page();
    extents.write(&account, 0, b"x").unwrap();
    let used = account.used();
    for end in [3 * PAGE_BYTES, 1 << 62, i64::MAX as u64] {
        assert!(extents.allocate(&account, 0, end, &zeros, false).is_err());
    }
    assert_eq!(account.used(), used);
    extents.allocate(&account, 0, 2 * PAGE_BYTES, &zeros, false).unwrap();
    assert_eq!(extents.write(&account, 0, &[1; 2 * PAGE]), Ok(2 * PAGE));
}

#[test]
fn next_data_and_hole_find_the_bounds() {
    let account = account();
    let mut extents = Extents::default();
    extents.write(&account, 2 * PAGE_BYTES + 5, &[1; PAGE]).unwrap();
    assert_eq!(extents.next_data(0), Some(2 * PAGE_BYTES));
    assert_eq!(extents.next_data(2 * PAGE_BYTES + 9), Some(2 * PAGE_BYTES + 9));
    assert_eq!(extents.next_data(4 * PAGE_BYTES), None);
    assert_eq!(extents.next_hole(7), 7);
    assert_eq!(extents.next_hole(2 * PAGE_BYTES + 1), 4 * PAGE_BYTES);
}
