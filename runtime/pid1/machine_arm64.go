package pid1

import "debug/elf"

const machine = elf.EM_AARCH64
