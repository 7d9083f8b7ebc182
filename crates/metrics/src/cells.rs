//! First homology of nested voxel objects, over Z/2, by cancelling pairs of cells before any algebra.
//!
//! An object is a complex of cells: the closed voxels with their faces, edges and corners. Cells are added one after
//! the other, first those of the smaller object. As long as possible a cell is added together with its only missing
//! face, which changes nothing in the homology (a discrete gradient: Forman 1998,
//! <https://doi.org/10.1006/aima.1997.1650>; the queue is that of the coreductions of Mrozek & Batko 2009,
//! <https://doi.org/10.1007/s00454-008-9073-y>). The few cells that must come alone are *critical*, and the boundary
//! matrix between critical faces and critical edges is reduced as in persistent homology
//! (Zomorodian & Carlsson 2005, <https://doi.org/10.1007/s00454-004-1146-y>).

use std::collections::{BinaryHeap, VecDeque};

use crate::forest::Forest;

/// A cell of the first object.
pub(crate) const FIRST: u8 = 1;
/// A cell of the second object.
pub(crate) const SECOND: u8 = 2;

/// The cells of two objects in one volume.
///
/// A cell lies at `(z, y, x)` of a grid twice as fine; an axis with an odd coordinate is one along which the cell
/// extends. The grid has a border without cells, so that every cell has neighbours: coordinates are one higher.
pub(crate) struct Cells {
    /// Which objects hold the cell, a union of [`FIRST`] and [`SECOND`]; above these two bits, the axes along which
    /// it extends, bit k for axis k. Worked out once: the cells are visited many times.
    cells: Vec<u8>,
    /// Steps along z, y, x.
    steps: [usize; 3],
    size: [usize; 3],
}

impl Cells {
    pub fn new(first: &[bool], second: &[bool], shape: [usize; 3]) -> Self {
        let [_, h, w] = shape;
        let size = shape.map(|length| 2 * length + 3);
        let steps = [size[1] * size[2], size[2], 1];
        // Coordinates are one higher than those whose parity counts.
        let even = |at: usize| u8::from(at.is_multiple_of(2));
        let mut cells = Vec::with_capacity(size[0] * steps[0]);
        for z in 0..size[0] {
            for y in 0..size[1] {
                let axes = even(z) | even(y) << 1;
                cells.extend((0..size[2]).map(|x| (axes | even(x) << 2) << 2));
            }
        }
        for (voxel, (&first, &second)) in first.iter().zip(second).enumerate() {
            if !first && !second {
                continue;
            }
            let holder = (u8::from(first) * FIRST) | (u8::from(second) * SECOND);
            let (z, y, x) = (voxel / w / h, voxel / w % h, voxel % w);
            for dz in 1..=3 {
                for dy in 1..=3 {
                    let at = (2 * z + dz) * steps[0] + (2 * y + dy) * steps[1] + 2 * x + 1;
                    cells[at..at + 3].iter_mut().for_each(|cell| *cell |= holder);
                }
            }
        }
        Self { cells, steps, size }
    }

    /// Axes along which a cell extends: bit k for axis k.
    fn extent(&self, cell: usize) -> u8 {
        self.cells[cell] >> 2
    }

    /// Objects that hold a cell.
    fn holders(&self, cell: usize) -> u8 {
        self.cells[cell] & (FIRST | SECOND)
    }

    fn faces(&self, cell: usize, extent: u8) -> impl Iterator<Item = usize> {
        let steps = self.steps;
        (0..3).filter(move |k| extent >> k & 1 == 1).flat_map(move |k| [cell - steps[k], cell + steps[k]])
    }

    fn cofaces(&self, cell: usize, extent: u8) -> impl Iterator<Item = usize> {
        let steps = self.steps;
        (0..3).filter(move |k| extent >> k & 1 == 0).flat_map(move |k| [cell - steps[k], cell + steps[k]])
    }

    /// Of the parts of the intersection of both objects (as closed sets: they may meet in no more than a corner):
    /// their number, and for each the cell of one of its corners.
    pub fn meeting(&self) -> Vec<usize> {
        let both = FIRST | SECOND;
        let corners: Vec<usize> = (0..self.cells.len())
            .filter(|&cell| self.holders(cell) == both && self.extent(cell) == 0)
            .collect();
        let mut forest = Forest::new(corners.len());
        // Corners ascend, so the next one along an axis is found by bisection.
        for (k, &corner) in corners.iter().enumerate() {
            for step in self.steps {
                if self.holders(corner + step) == both
                    && let Ok(other) = corners[k..].binary_search(&(corner + 2 * step))
                {
                    forest.join(k, k + other);
                }
            }
        }
        (0..corners.len()).filter(|&k| forest.root(k) == k).map(|k| corners[k]).collect()
    }

    /// A voxel of `mask` that has the corner `cell`.
    pub fn voxel_at(&self, cell: usize, mask: &[bool], [d, h, w]: [usize; 3]) -> Option<usize> {
        let after = [cell / self.steps[0], cell / self.steps[1] % self.size[1], cell % self.size[2]]
            .map(|coordinate| (coordinate - 1) / 2);
        (0..8_usize).find_map(|bit| {
            let z = after[0].checked_sub(bit >> 2 & 1)?;
            let y = after[1].checked_sub(bit >> 1 & 1)?;
            let x = after[2].checked_sub(bit & 1)?;
            let voxel = (z * h + y) * w + x;
            (z < d && y < h && x < w && mask[voxel]).then_some(voxel)
        })
    }

    /// Rank of `H_1(object) -> H_1(both objects)`, where `object` has `components` components.
    pub fn tunnels_kept(&self, object: u8, components: u64) -> u64 {
        let complex = Filling::of(self, object);
        let positive = complex.early_edges + components - complex.early_corners;
        positive - complex.early_tunnels_filled()
    }
}

/// The gradient pair of an edge.
const WITH_CORNER: u32 = u32::MAX;
const CRITICAL: u32 = u32::MAX - 1;

/// The order in which the cells were added.
struct Filling<'a> {
    cells: &'a Cells,
    /// Number of each edge in the order of addition; only where the cell is an edge.
    number: Vec<u32>,
    /// By number: the face that the edge came with, or [`WITH_CORNER`], or [`CRITICAL`].
    partner: Vec<u32>,
    /// Critical faces in the order of addition.
    faces: Vec<usize>,
    /// Critical corners and edges of the smaller object, and the edges of it in all.
    early_corners: u64,
    early_edges: u64,
    early: usize,
}

impl<'a> Filling<'a> {
    fn of(cells: &'a Cells, object: u8) -> Self {
        let length = cells.cells.len();
        let mut filling = Self {
            cells,
            number: vec![0; length],
            partner: Vec::new(),
            faces: Vec::new(),
            early_corners: 0,
            early_edges: 0,
            early: 0,
        };
        let mut front = Front::new(length);
        filling.fill(&mut front, |holders| holders & object != 0, true);
        filling.early = filling.partner.len();
        // What the smaller object's cells left behind has the same count of missing faces still.
        filling.fill(&mut front, |holders| holders != 0, false);
        filling
    }

    /// Adds every cell for whose holders `present` says so.
    fn fill(&mut self, front: &mut Front, present: impl Fn(u8) -> bool, early: bool) {
        let cells = self.cells;
        for cell in 0..cells.cells.len() {
            if present(cells.holders(cell)) && !front.added[cell] {
                front.offer(cell, cells.extent(cell));
            }
        }
        let mut corners = 0..cells.cells.len();
        loop {
            if let Some(cell) = front.next_expansion() {
                let extent = cells.extent(cell);
                let Some(face) = cells.faces(cell, extent).find(|&face| !front.added[face]) else { continue };
                let of_face = cells.extent(face);
                self.add(front, face, of_face, &present, cell as u32);
                self.add(front, cell, extent, &present, WITH_CORNER);
            } else if let Some(cell) = front.next_ready() {
                let extent = cells.extent(cell);
                match extent.count_ones() {
                    1 => self.early_edges += u64::from(early),
                    2 => self.faces.push(cell),
                    _ => {}
                }
                self.add(front, cell, extent, &present, CRITICAL);
            } else if let Some(corner) = corners
                .find(|&cell| present(cells.holders(cell)) && !front.added[cell] && cells.extent(cell) == 0)
            {
                self.early_corners += u64::from(early);
                self.add(front, corner, 0, &present, CRITICAL);
            } else {
                return;
            }
        }
    }

    fn add(
        &mut self,
        front: &mut Front,
        cell: usize,
        extent: u8,
        present: &impl Fn(u8) -> bool,
        partner: u32,
    ) {
        front.added[cell] = true;
        if extent.count_ones() == 1 {
            self.number[cell] = self.partner.len() as u32;
            self.partner.push(partner);
        }
        for coface in self.cells.cofaces(cell, extent) {
            front.present_faces[coface] += 1;
            if present(self.cells.holders(coface)) && !front.added[coface] {
                front.offer(coface, self.cells.extent(coface));
            }
        }
    }

    /// The boundary of a critical face in critical edges, descending by number. Edges that came with a corner close no
    /// loop and are left out.
    fn boundary(&self, face: usize, heap: &mut BinaryHeap<u32>) -> Vec<u32> {
        let edges =
            |face: usize| self.cells.faces(face, self.cells.extent(face)).map(|edge| self.number[edge]);
        let mut boundary = Vec::new();
        heap.extend(edges(face));
        while let Some(edge) = heap.pop() {
            if heap.peek() == Some(&edge) {
                heap.pop();
                continue;
            }
            match self.partner[edge as usize] {
                WITH_CORNER => {}
                CRITICAL => boundary.push(edge),
                face => heap.extend(edges(face as usize).filter(|&other| other != edge)),
            }
        }
        boundary
    }

    /// How many tunnels of the smaller object are filled, in it or in the larger one.
    fn early_tunnels_filled(&self) -> u64 {
        let mut heap = BinaryHeap::new();
        let mut reduced: Vec<Vec<u32>> = Vec::new();
        let mut by_youngest: Vec<u32> = vec![u32::MAX; self.partner.len()];
        let mut filled = 0;
        for &face in &self.faces {
            let mut column = self.boundary(face, &mut heap);
            while let Some(&youngest) = column.first() {
                let Some(earlier) = reduced.get(by_youngest[youngest as usize] as usize) else {
                    filled += u64::from((youngest as usize) < self.early);
                    by_youngest[youngest as usize] = reduced.len() as u32;
                    reduced.push(column);
                    break;
                };
                column = sum(&column, earlier);
            }
        }
        filled
    }
}

/// Sum over Z/2 of two descending columns.
fn sum(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut sum = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a, b);
    while let (Some(&x), Some(&y)) = (a.first(), b.first()) {
        if x >= y {
            a = &a[1..];
        }
        if y >= x {
            b = &b[1..];
        }
        if x != y {
            sum.push(x.max(y));
        }
    }
    sum.extend_from_slice(a);
    sum.extend_from_slice(b);
    sum
}

/// Cells that may come next.
struct Front {
    added: Vec<bool>,
    /// Faces of the cell that have been added.
    present_faces: Vec<u8>,
    /// Cells with one face missing, by dimension less one.
    expansions: [VecDeque<u32>; 3],
    /// Cells with no face missing.
    ready: [VecDeque<u32>; 3],
}

impl Front {
    fn new(length: usize) -> Self {
        Self {
            added: vec![false; length],
            present_faces: vec![0; length],
            expansions: Default::default(),
            ready: Default::default(),
        }
    }

    fn offer(&mut self, cell: usize, extent: u8) {
        let dimension = extent.count_ones() as usize;
        let missing = 2 * dimension - usize::from(self.present_faces[cell]);
        if dimension > 0 && missing < 2 {
            let queues = if missing == 1 { &mut self.expansions } else { &mut self.ready };
            queues[dimension - 1].push_back(cell as u32);
        }
    }

    /// A cell with exactly one face missing, of the highest dimension.
    fn next_expansion(&mut self) -> Option<usize> {
        self.next(1)
    }

    /// A cell with all faces present, of the highest dimension.
    fn next_ready(&mut self) -> Option<usize> {
        self.next(0)
    }

    fn next(&mut self, missing: u8) -> Option<usize> {
        let queues = if missing == 1 { &mut self.expansions } else { &mut self.ready };
        for (faces, queue) in [2, 4, 6].into_iter().zip(queues).rev() {
            while let Some(cell) = queue.pop_front() {
                let cell = cell as usize;
                if !self.added[cell] && self.present_faces[cell] + missing == faces {
                    return Some(cell);
                }
            }
        }
        None
    }
}
