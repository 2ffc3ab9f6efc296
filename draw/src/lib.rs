//! The random orders that loaders draw, drawn again: those of PyTorch, of Python and of NumPy.
//!
//! All of them are Fisher and Yates' shuffle with the numbers of a small generator, and so a seed tells an order of a million
//! files. They differ in the generator, in how it is seeded, in how its numbers become an index ([`Way`]), and in the
//! end that they begin at: PyTorch settles the first place first, the others the last.
//!
//! That serves two rooms that may not know each other: the API draws what a job announces, and the model asks which seed
//! an order that it saw could have come from. The second wants the beginning of very many orders and the whole of few.
//! Therefore a list is shuffled only as far as its places are as expected ([`Table`]), generators are seeded several side by
//! side, and of PyTorch's the first number needs two thirds of the seeding and nothing else ([`first_numbers`],
//! [`beginning`]).

mod drawer;
mod pcg;
mod torch;
mod twister;

pub use drawer::{Drawer, Table, Way};
pub use pcg::Pcg;
pub use torch::{beginning, permutation};
pub use twister::{Twister, first_numbers};

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn its_numbers_are_those_of_another_implementation(seed: u32) {
            let (mut ours, mut other) = (Twister::new(seed), rand_mt::Mt::new(seed));
            proptest::prop_assert_eq!(first_numbers([seed, 7]), [Twister::new(seed).number(), Twister::new(7).number()]);
            for _ in 0..2000 {
                proptest::prop_assert_eq!(ours.number(), other.next_u32());
            }
        }

        #[test]
        fn a_beginning_is_that_of_the_whole(seed: u32, n in 0u32..300) {
            let whole = permutation(&mut Twister::new(seed), n);
            let begun: Vec<u32> = beginning(&mut Twister::new(seed), n).collect();
            proptest::prop_assert_eq!(&begun, &whole);
            let (mut one, mut two) = (Twister::new(seed), Twister::new(seed));
            permutation(&mut one, n);
            let _ = beginning(&mut two, n).count();
            proptest::prop_assert_eq!(one.number(), two.number(), "both have drawn as many");
        }
    }

    /// `torch.randperm(24, generator=torch.Generator().manual_seed(1000))[:8]`.
    #[test]
    fn an_order_that_pytorch_drew_is_drawn_again() {
        let begun: Vec<u32> = beginning(&mut Twister::new(1000), 24).take(8).collect();
        assert_eq!(begun, [19, 15, 9, 14, 1, 12, 22, 18]);
    }
}
