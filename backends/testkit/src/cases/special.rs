//! FIFOs, sockets and devices: mknod(2).

use stratafs_core::{Errno, FileType};

use crate::case::case;
use crate::{Caller, Case, Family, Verdict, World, equal, refused};

const FAMILY: Family = Family::Special;

pub(super) const CASES: &[Case] = &[
    case!(mknod_of_a_fifo_makes_one, SPECIAL_FILES),
    case!(mknod_of_a_socket_makes_one, SPECIAL_FILES),
    case!(mknod_of_a_regular_file_makes_an_empty_one),
    case!(mknod_without_a_type_makes_a_regular_file).in_process("the kernel puts the type in"),
    case!(mknod_of_a_character_device_keeps_its_number, DEVICES),
    case!(mknod_of_a_block_device_keeps_its_number, DEVICES),
    case!(mknod_of_a_large_device_number_keeps_all_its_bits, DEVICES),
    case!(mknod_over_an_existing_name_returns_eexist, SPECIAL_FILES),
    case!(mknod_in_a_file_returns_enotdir, SPECIAL_FILES),
    case!(mknod_in_an_absent_directory_returns_enoent, SPECIAL_FILES),
    case!(mknod_of_a_directory_returns_einval).in_process("the kernel says EPERM by itself"),
    case!(mknod_applies_the_umask, SPECIAL_FILES),
    case!(mknod_belongs_to_the_caller, SPECIAL_FILES | PRIVILEGE),
    case!(special_file_can_be_renamed_and_removed, SPECIAL_FILES),
    case!(special_file_keeps_its_type_through_chmod, SPECIAL_FILES),
];

fn mknod_of_a_fifo_makes_one(w: &World<'_>) -> Verdict {
    w.mknod("p", 0o010_640, 0)?;
    let attr = w.stat("p")?;
    equal((attr.mode, attr.size, attr.nlink), (0o010_640, 0, 1), "mode, size, nlink")
}

fn mknod_of_a_socket_makes_one(w: &World<'_>) -> Verdict {
    w.mknod("s", 0o140_600, 0)?;
    equal(w.stat("s")?.mode, 0o140_600, "mode")
}

fn mknod_of_a_regular_file_makes_an_empty_one(w: &World<'_>) -> Verdict {
    w.mknod("f", 0o100_604, 0)?;
    equal((w.stat("f")?.mode, w.stat("f")?.size), (0o100_604, 0), "mode and size")?;
    w.write_at("f", 0, b"data")?;
    equal(w.read("f")?, b"data", "the data")
}

fn mknod_without_a_type_makes_a_regular_file(w: &World<'_>) -> Verdict {
    w.mknod("f", 0o604, 0)?;
    equal(w.stat("f")?.mode, 0o100_604, "mode")
}

fn mknod_of_a_character_device_keeps_its_number(w: &World<'_>) -> Verdict {
    w.mknod("null", 0o020_666, 0x103)?;
    let attr = w.stat("null")?;
    equal((attr.mode, attr.rdev), (0o020_666, 0x103), "mode and device number")
}

fn mknod_of_a_block_device_keeps_its_number(w: &World<'_>) -> Verdict {
    w.mknod("loop", 0o060_660, 0x701)?;
    let attr = w.stat("loop")?;
    equal((attr.mode, attr.rdev), (0o060_660, 0x701), "mode and device number")
}

/// 12 bits of major number and 20 of minor, in the kernel's encoding.
fn mknod_of_a_large_device_number_keeps_all_its_bits(w: &World<'_>) -> Verdict {
    w.mknod("dev", 0o020_666, 0xABCD_EF12)?;
    equal(w.stat("dev")?.rdev, 0xABCD_EF12, "the device number")
}

fn mknod_over_an_existing_name_returns_eexist(w: &World<'_>) -> Verdict {
    w.file("f", b"data")?;
    refused(w.mknod("f", 0o010_644, 0), Errno::EEXIST)?;
    equal(w.read("f")?, b"data", "what was there")
}

fn mknod_in_a_file_returns_enotdir(w: &World<'_>) -> Verdict {
    w.file("f", b"")?;
    refused(w.mknod("f/p", 0o010_644, 0), Errno::ENOTDIR)
}

fn mknod_in_an_absent_directory_returns_enoent(w: &World<'_>) -> Verdict {
    refused(w.mknod("absent/p", 0o010_644, 0), Errno::ENOENT)
}

fn mknod_of_a_directory_returns_einval(w: &World<'_>) -> Verdict {
    refused(w.mknod("d", 0o040_755, 0), Errno::EINVAL)?;
    refused(w.mknod("l", 0o120_777, 0), Errno::EINVAL)?;
    equal(w.names("")?, [""; 0], "the listing")
}

fn mknod_applies_the_umask(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::ROOT.with_umask(0o022))?;
    w.mknod("p", 0o010_666, 0)?;
    equal(w.stat("p")?.mode, 0o010_644, "mode")
}

fn mknod_belongs_to_the_caller(w: &World<'_>) -> Verdict {
    w.set_caller(&Caller::user(1234, 5678))?;
    w.mknod("p", 0o010_666, 0)?;
    let attr = w.stat("p")?;
    equal((attr.uid, attr.gid), (1234, 5678), "the owner")
}

fn special_file_can_be_renamed_and_removed(w: &World<'_>) -> Verdict {
    w.mknod("p", 0o010_644, 0)?;
    w.rename("p", "q")?;
    equal(w.stat("q")?.kind(), FileType::Fifo, "the type")?;
    w.unlink("q")?;
    equal(w.names("")?, [""; 0], "the listing")
}

fn special_file_keeps_its_type_through_chmod(w: &World<'_>) -> Verdict {
    w.mknod("p", 0o010_644, 0)?;
    w.chmod("p", 0o600)?;
    equal(w.stat("p")?.mode, 0o010_600, "mode")
}
