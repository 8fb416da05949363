//! Values that remember which choices they came from.

/// A variable of a table: a gene's place in its genome.
pub type Var = u32;

/// A sorted set of variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VarSet(Vec<Var>);

impl VarSet {
    /// The set of one variable.
    pub fn one(var: Var) -> Self {
        Self(vec![var])
    }

    /// Adds the variables of another set.
    pub fn extend(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.extend_from_slice(&other.0);
        } else if !other.is_subset(self) {
            self.0.extend_from_slice(&other.0);
            self.0.sort_unstable();
            self.0.dedup();
        }
    }

    /// Whether all its variables are in another set.
    pub fn is_subset(&self, other: &Self) -> bool {
        let mut theirs = other.0.iter();
        self.0.iter().all(|var| theirs.by_ref().any(|their| their == var))
    }

    /// The variables, rising.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Var> + '_ {
        self.0.iter().copied()
    }
}

/// A value that only [`Trace::get`] opens, which records the dependence.
///
/// It has no `PartialEq` and no `Deref`: a comparison without a trace would be an unrecorded dependence.
#[derive(Clone, Debug)]
pub struct Traced<T> {
    pub(crate) value: T,
    pub(crate) depends: VarSet,
}

/// Collects the dependences of opened values.
#[derive(Debug, Default)]
pub struct Trace(VarSet);

impl Trace {
    /// Opens a value.
    pub fn get<T: Copy>(&mut self, traced: &Traced<T>) -> T {
        self.0.extend(&traced.depends);
        traced.value
    }
}

/// A value computed from traced ones; depends on all values that were opened. It is a `Fn`, so that no opened value can
/// leave it.
pub fn traced<T>(compute: impl Fn(&mut Trace) -> T) -> Traced<T> {
    let mut trace = Trace::default();
    let value = compute(&mut trace);
    Traced { value, depends: trace.0 }
}

/// A value that depends on nothing.
pub fn fixed<T>(value: T) -> Traced<T> {
    Traced { value, depends: VarSet::default() }
}
