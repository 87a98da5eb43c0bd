package pid1

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"sync"
	"unsafe"
)

// Separator stands in the arguments between the paths to try and the program's own arguments.
const Separator = "--"

const (
	// base is where the program is loaded; pages of up to 64 KiB are in use.
	base  = 0x400000
	align = 0x10000
	// marker ends the machine code.
	marker = "end of pid1 code"
	// maxCode bounds the search for it.
	maxCode = 4096
)

var errNoEnd = errors.New("the machine code of the init has no end")

// entry returns the address of the first instruction of the program, which is part of the code of this process.
func entry() unsafe.Pointer

// Program returns the executable for the architecture that this process runs on. The caller must not change it.
func Program() ([]byte, error) { return program() }

var program = sync.OnceValues(build)

// build wraps the machine code that is part of this process into an executable with one segment.
func build() ([]byte, error) {
	code := unsafe.Slice((*byte)(entry()), maxCode)
	end := bytes.Index(code, []byte(marker))
	if end < 0 {
		return nil, errNoEnd
	}
	const headers = 64 + 2*56 // of the file and of two segments
	size := uint64(headers + end)
	var out bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Entry: base + headers,
			Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: align,
		},
		elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W), Align: 16},
	} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	out.Write(code[:end])
	return out.Bytes(), nil
}
