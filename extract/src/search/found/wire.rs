//! The forms of version 4 of what the file holds: candidates and limits, and its kind and version.

use std::collections::BTreeMap;

use base::document;
use search::{AccuracyFrom, Candidate};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use space::Arch;

use super::super::value_form::ValueForm;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CandidateForm {
    arch: Arch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accuracy_from: Option<AccuracyFrom>,
    #[serde(deserialize_with = "document::each_key_once")]
    values: BTreeMap<String, ValueForm>,
}

impl From<&Candidate> for CandidateForm {
    fn from(candidate: &Candidate) -> Self {
        let Candidate { arch, values, accuracy_from } = candidate;
        let values = values.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        Self { arch: arch.clone(), accuracy_from: *accuracy_from, values }
    }
}

impl From<CandidateForm> for Candidate {
    fn from(form: CandidateForm) -> Self {
        let CandidateForm { arch, values, accuracy_from } = form;
        let values = values.into_iter().map(|(name, value)| (name, value.into())).collect();
        Self { arch, values, accuracy_from }
    }
}

/// A field that says what the file is; it was checked at the door.
macro_rules! constant_field {
    ($name:ident, $constant:expr) => {
        pub(super) mod $name {
            use serde::de::IgnoredAny;
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            pub fn serialize<S: Serializer>(_: &(), serializer: S) -> Result<S::Ok, S::Error> {
                $constant.serialize(serializer)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
                IgnoredAny::deserialize(deserializer).map(|_| ())
            }
        }
    };
}

constant_field!(kind, super::super::KIND);
constant_field!(version, super::super::VERSION);

pub(super) mod candidate {
    use super::{Candidate, CandidateForm, Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(candidate: &Candidate, serializer: S) -> Result<S::Ok, S::Error> {
        CandidateForm::from(candidate).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Candidate, D::Error> {
        CandidateForm::deserialize(deserializer).map(Candidate::from)
    }
}

pub(super) mod candidates {
    use super::{Candidate, CandidateForm, Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(candidates: &[Candidate], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(candidates.iter().map(CandidateForm::from))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Candidate>, D::Error> {
        let forms = Vec::<CandidateForm>::deserialize(deserializer)?;
        Ok(forms.into_iter().map(Candidate::from).collect())
    }
}

pub(super) mod limits {
    use base::document;
    use search::Limits;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(limits: &Limits, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(limits.iter())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
        Ok(document::each_key_once::<D, f64>(deserializer)?.into_iter().collect())
    }
}
