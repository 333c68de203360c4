//! The corpus replayed, each file as it is and in a few mutations.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::time::Instant;

use convzoo_fuzz::mutate::{Random, mutate};
use convzoo_fuzz::{TARGETS, corpus};

#[test]
fn every_file_of_the_corpus_is_read_or_refused_and_so_are_mutations_of_it() {
    for target in TARGETS {
        let files = corpus(&target).unwrap();
        let mut read = 0;
        for (index, bytes) in files.iter().enumerate() {
            let start = Instant::now();
            read += usize::from((target.run)(bytes));
            let mut random = Random(bytes.len() as u64);
            for _ in 0..20 {
                (target.run)(&mutate(bytes, 4096, &mut random));
            }
            assert!(start.elapsed().as_secs() < 60, "{} {index} takes {:.0?}", target.name, start.elapsed());
        }
        // A corpus of nothing that is read would try error paths alone.
        assert!(read > 0, "{}: none of {} files is read", target.name, files.len());
    }
}
