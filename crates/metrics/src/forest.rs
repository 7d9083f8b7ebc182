//! Union-find.

/// Disjoint sets. The root of a set is its smallest member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forest {
    parent: Vec<u32>,
}

impl Forest {
    pub fn new(members: usize) -> Self {
        Self { parent: (0..members as u32).collect() }
    }

    pub fn add(&mut self) {
        self.parent.push(self.parent.len() as u32);
    }

    pub fn root(&mut self, member: usize) -> usize {
        let mut member = member as u32;
        while self.parent[member as usize] != member {
            let above = self.parent[self.parent[member as usize] as usize];
            self.parent[member as usize] = above;
            member = above;
        }
        member as usize
    }

    /// Joins two sets; whether they were apart.
    pub fn join(&mut self, a: usize, b: usize) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parent[high] = low as u32;
        low != high
    }
}
