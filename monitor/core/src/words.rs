//! Closed sets of words: enums whose members have a name in records, filters and metric labels.

/// Gives an enum `ALL`, `name` and `Display`.
macro_rules! words {
    ($type:ident, $($variant:ident = $name:literal),+ $(,)?) => {
        impl $type {
            /// Every member.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Name in records, filters and metric labels.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.name())
            }
        }
    };
}

pub(crate) use words;
