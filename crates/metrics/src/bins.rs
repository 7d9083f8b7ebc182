//! How a probability in `[0, 1]` is mapped to a bin.
//!
//! Networks put most of their mass next to 0 or next to 1, where evenly spaced bins would merge
//! everything that matters. These bins have a constant *relative* width on both sides, measured from
//! the nearer end: floating-point numbers are already spaced that way, so the bin is read off the bit
//! pattern of `p` (for `p <= 1/2`) or of `1 - p` (for `p > 1/2`, where the subtraction is exact).
//!
//! Every bin is a half-open interval `(lower, upper]`, so that for a threshold on a bin's edge
//! "greater than the threshold" is decided exactly. 1/2 is an edge, and so is every number with at most
//! 14 significant bits in `[2^-24, 1/2]`, with its mirror image.
//!
//! | region of p          | bins per doubling | bins   |
//! |----------------------|-------------------|--------|
//! | `{0}`                |                   | 1      |
//! | `(0, 2^-24]`         | 64                | 6592   |
//! | `(2^-24, 1/2]`       | 8192              | 188416 |
//! | `(1/2, 1 - 2^-24]`   | 8192 (of `1 - p`) | 188416 |
//! | `{1}`                |                   | 1      |

/// Bits dropped from the pattern of a number in `(2^-24, 1/2]`: 13 of 23 mantissa bits stay. With 11
/// the average precision of a rare class near 0 is off by 2e-3; speed is the same.
const FINE_SHIFT: u32 = 10;
/// Bits dropped below `2^-24`, where only the order of magnitude is of interest: 6 bits stay.
const COARSE_SHIFT: u32 = 17;
/// Bit pattern of `2^-24`, the distance between 1 and the largest `f32` below it.
const TINY: u32 = (127 - 24) << 23;
/// Bit pattern of 1/2.
const HALF: u32 = 126 << 23;

const COARSE: usize = (TINY >> COARSE_SHIFT) as usize;
const FINE: usize = ((HALF - TINY) >> FINE_SHIFT) as usize;
/// Number of bins in `[0, 1/2]`.
const LOW: usize = 1 + COARSE + FINE;
/// Number of bins in all.
pub(crate) const BINS: usize = LOW + FINE + 1;

/// The bin of a probability, which must lie in `[0, 1]`. Bins ascend with the probability.
#[inline]
pub(crate) fn bin_of(probability: f32) -> usize {
    if probability > 0.5 {
        let bits = (1.0 - probability).to_bits();
        // 1 - p is 0 or at least 2^-24, so 0 is the only pattern below `TINY`.
        let from_top = (bits.max(TINY - (1 << FINE_SHIFT)) - (TINY - (1 << FINE_SHIFT))) >> FINE_SHIFT;
        BINS - 1 - from_top as usize
    } else {
        // Without the sign, so that -0 is 0.
        let bits = probability.to_bits() & 0x7FFF_FFFF;
        if bits > TINY {
            // The subtraction of one puts a number on an edge into the bin below it.
            1 + COARSE + ((bits - 1 - TINY) >> FINE_SHIFT) as usize
        } else if bits > 0 {
            1 + ((bits - 1) >> COARSE_SHIFT) as usize
        } else {
            0
        }
    }
}

/// The threshold that exactly the bins `bin..` exceed: the lower edge of `bin`, exclusive.
///
/// -1 for the bin of the probability 0, which no threshold in `[0, 1]` lets pass; 1 for `BINS`.
pub(crate) fn lower_edge(bin: usize) -> f64 {
    if bin == 0 {
        -1.0
    } else if bin <= COARSE {
        edge(((bin - 1) as u32) << COARSE_SHIFT)
    } else if bin < LOW {
        edge(TINY + (((bin - 1 - COARSE) as u32) << FINE_SHIFT))
    } else if bin < BINS {
        // Bin `LOW` is the one whose 1 - p is largest, so its far edge is 1/2.
        let from_top = (BINS - 1 - bin) as u32;
        1.0 - edge(TINY + (from_top << FINE_SHIFT))
    } else {
        1.0
    }
}

fn edge(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

/// The first bin counted as positive at `threshold`: the one whose lower edge is nearest to it.
pub(crate) fn first_bin_above(threshold: f64) -> usize {
    if threshold.is_nan() || threshold >= 1.0 {
        return BINS;
    }
    if threshold < 0.0 {
        return 0;
    }
    // The conversion may round across one edge, so the neighbours on both sides are candidates.
    let bin = bin_of(threshold as f32);
    (bin.max(2) - 1..=(bin + 2).min(BINS))
        .min_by(|&a, &b| {
            let distance = |bin| (lower_edge(bin) - threshold).abs();
            distance(a).total_cmp(&distance(b))
        })
        .unwrap_or(bin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bin_holds_exactly_what_lies_between_its_edges() {
        let mut previous = -1.0;
        for bin in 1..=BINS {
            let edge = lower_edge(bin);
            assert!(edge > previous, "edges ascend at bin {bin}");
            previous = edge;
            if bin == BINS {
                break;
            }
            // The largest f32 not above the edge belongs below, the smallest above it belongs here
            // or, where bins are finer than f32, higher.
            let mut below = edge as f32;
            if f64::from(below) > edge {
                below = below.next_down();
            }
            assert!(bin_of(below) < bin, "{below} lies at or below edge {bin}");
            assert!(bin_of(below.next_up()) >= bin, "above edge {bin}");
        }
    }

    #[test]
    fn the_extremes_have_a_bin_of_their_own() {
        assert_eq!(bin_of(0.0), 0);
        assert_eq!(bin_of(-0.0), 0);
        assert_eq!(bin_of(f32::from_bits(1)), 1);
        assert_eq!(bin_of(1.0), BINS - 1);
        assert_eq!(bin_of(1.0_f32.next_down()), BINS - 2);
        assert_eq!(bin_of(0.5), LOW - 1);
        assert_eq!(bin_of(0.5_f32.next_up()), LOW);
        assert_eq!(lower_edge(LOW), 0.5);
    }

    #[test]
    fn thresholds_on_an_edge_are_kept() {
        for threshold in [0.0, 0.125, 0.25, 0.5, 0.75, 0.875] {
            assert_eq!(lower_edge(first_bin_above(threshold)), threshold);
        }
        assert_eq!(first_bin_above(-1.0), 0);
        assert_eq!(first_bin_above(1.0), BINS);
        assert_eq!(first_bin_above(f64::NAN), BINS);
    }

    #[test]
    fn thresholds_elsewhere_move_by_less_than_a_bin() {
        for step in 1..1000 {
            let threshold = f64::from(step) / 1000.0;
            let used = lower_edge(first_bin_above(threshold));
            let room = threshold.min(1.0 - threshold) / 8192.0;
            assert!((used - threshold).abs() <= room, "{threshold} became {used}");
        }
    }
}
