//! What PyTorch draws on the processor: Fisher and Yates' shuffle from the front. Place `i` changes with the one that
//! `random() % (n - i)` further on.

use std::collections::HashMap;

use crate::Twister;

/// The order of `n` things that `torch.randperm` draws.
pub fn permutation(generator: &mut Twister, n: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    for i in 0..n.saturating_sub(1) {
        let other = i + generator.number() % (n - i);
        order.swap(i as usize, other as usize);
    }
    order
}

/// The same from its beginning, drawn only as far as it is asked for.
pub fn beginning(generator: &mut Twister, n: u32) -> impl Iterator<Item = u32> + use<'_> {
    // What stands at a place that a draw has reached; at the others their own numbers do.
    let mut moved: HashMap<u32, u32> = HashMap::new();
    (0..n).map(move |i| {
        let other = if i + 1 < n { i + generator.number() % (n - i) } else { i };
        let here = moved.remove(&i).unwrap_or(i);
        if other == i { here } else { moved.insert(other, here).unwrap_or(other) }
    })
}
