//! The list of a server's options, and how its layers lie upon one another.

/// Lists the options of a server: a struct of optional values for clap and for TOML, with `or`, `load` and `check`.
///
/// The head names the struct, the configuration that is made of it, and what every environment variable begins with. Each option is a
/// name, the type of its value, the rest of its environment variable, and what help shows in the value's place. `config`
/// is there without being listed. What is written above an option is its help; an `#[arg(..)]` may follow.
///
/// The crate that uses it depends on `clap` (with `derive` and `env`) and `serde` (with `derive`), and writes the one method that makes
/// the configuration, notes problems, and puts any value in the place of what is wrong:
///
/// ```
/// #[derive(Debug)]
/// pub struct Config {
///     pub shards: usize,
///     pub coordinators: Vec<String>,
/// }
///
/// settings::settings! {
///     /// The options of the example.
///     pub struct Settings for Config, "AUTOCOMPLETE_EXAMPLE_";
///
///     /// Shards, 1 to 64 [default: 3]
///     shards: usize, "SHARDS", "N";
///     /// Coordinators, comma separated [required]
///     #[arg(value_delimiter = ',')]
///     coordinators: Vec<String>, "COORDINATORS", "HOST:PORT,...";
/// }
///
/// impl Settings {
///     fn examine(self, problems: &mut settings::Problems) -> Config {
///         Config {
///             shards: problems.number("shards", self.shards, 1..=64, 3),
///             coordinators: problems.authorities("coordinators", self.coordinators, None),
///         }
///     }
/// }
///
/// let settings = Settings { shards: Some(99), ..Settings::default() };
/// let problems = settings.check().unwrap_err();
/// assert_eq!(problems.0.len(), 2);
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$about:meta])+
        pub struct $settings:ident for $config:ty, $prefix:literal;
        $($(#[$meta:meta])+ $name:ident: $type:ty, $env:literal, $value:literal;)+
    ) => {
        $(#[$about])+
        ///
        /// Each can also stand in the environment, and, but for `config`, in the file of `--config`: TOML, the same names with
        /// underscores.
        #[derive(Debug, Clone, Default, PartialEq, Eq, ::clap::Args, ::serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $settings {
            /// TOML file with further settings; the command line and the environment win over it
            #[arg(long, env = concat!($prefix, "CONFIG"), value_name = "FILE")]
            #[serde(skip)]
            pub config: Option<::std::path::PathBuf>,
            $(
                $(#[$meta])+
                #[arg(long, env = concat!($prefix, $env), value_name = $value)]
                pub $name: Option<$type>,
            )+
        }

        $(
            const _: () = assert!(
                $crate::is_name_in_environment(stringify!($name), $env),
                concat!($env, " is not ", stringify!($name), " in capitals")
            );
        )+

        impl $settings {
            /// These settings, and where they say nothing, those of `lower`.
            #[must_use]
            pub fn or(self, lower: Self) -> Self {
                Self {
                    config: self.config.or(lower.config),
                    $($name: self.$name.or(lower.$name),)+
                }
            }

            /// Reads the file of `--config`, where one is named, and checks everything.
            ///
            /// # Errors
            /// Every problem that was found.
            pub fn load(self) -> Result<$config, $crate::Problems> {
                let mut problems = $crate::Problems::default();
                let file = $crate::file_layer(self.config.as_deref(), &mut problems);
                let config = self.or(file).examine(&mut problems);
                problems.none_or(config)
            }

            /// Checks everything, without a file.
            ///
            /// # Errors
            /// Every problem that was found.
            pub fn check(self) -> Result<$config, $crate::Problems> {
                let mut problems = $crate::Problems::default();
                let config = self.examine(&mut problems);
                problems.none_or(config)
            }
        }
    };
}

/// Whether an option's environment variable, without its prefix, is the option's own name in capitals.
#[must_use]
pub const fn is_name_in_environment(name: &str, env: &str) -> bool {
    let (name, env) = (name.as_bytes(), env.as_bytes());
    if name.len() != env.len() {
        return false;
    }
    let mut at = 0;
    while at < name.len() {
        if name[at].to_ascii_uppercase() != env[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_named_after_its_option() {
        assert!(is_name_in_environment("grpc_addr", "GRPC_ADDR"));
        assert!(!is_name_in_environment("grpc_addr", "GRPC_ADD"));
        assert!(!is_name_in_environment("grpc_addr", "HTTP_ADDR"));
        assert!(!is_name_in_environment("grpc_addr", "grpc_addr"));
    }
}
