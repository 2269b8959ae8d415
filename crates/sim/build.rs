//! Compiles the substitutes for the C library's sources of chance and time, see `c/world.c`.

fn main() {
    println!("cargo:rerun-if-changed=c/world.c");
    let objects = cc::Build::new().file("c/world.c").compile_intermediates();
    for object in objects {
        // As an object, not as a library: it must be linked although nothing of ours calls it.
        println!("cargo:rustc-link-arg={}", object.display());
    }
    // Libraries that look the functions up at run time must find ours, too.
    println!("cargo:rustc-link-arg=-rdynamic");
}
