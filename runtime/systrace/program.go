package systrace

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// LauncherName is the name, as in proc_pid_comm(5), of a process that is still Skep's launcher and not yet the container's program.
const LauncherName = "skep-runtime"

const (
	// maxNamespaces bounds what each call in a container is compared with: each comparison takes some 40 ns (BenchmarkCall).
	maxNamespaces = 16
	// maxNumber is above all numbers of calls: the highest are below 480.
	maxNumber = 512
	// maxInside bounds the threads whose last call is remembered. The kernel forgets the oldest, whose calls then seem refused if they
	// fail.
	maxInside = 32768
)

// Offsets in the value of the map of what was seen: a byte for each number of the native and of the 32-bit ABI, for the used and for
// the refused ones, and a byte for either with another number.
const (
	seenUsed    = 0
	seenRefused = 2 * maxNumber
	seenOther   = 4 * maxNumber
	seenSize    = seenOther + 8
)

// Registers that keep their values over calls of helpers.
const (
	tracepoint = asm.R6 // of the tracepoint: two words
	number     = asm.R7
	namespace  = asm.R8
	class      = asm.R9 // 1 for the 32-bit ABI
)

// Slots of the programs' stacks, below the frame pointer.
const (
	stackKey    = -8
	stackIDs    = -16 // struct bpf_pidns_info: thread, process
	stackName   = -32
	stackRead   = -40
	stackThread = -48 // key of the map of threads
	stackNumber = -56
)

// idsSize is the size of struct bpf_pidns_info, and nameSize that of a process's name.
const (
	idsSize  = 8
	nameSize = 16
)

// license is that of the programs in this package for the kernel, which gives some helpers to programs that are also under the
// GPL only: they are under either licence.
const license = "Dual MIT/GPL"

// maps are what the programs share with this process.
type maps struct {
	// namespaces has one value: the inode numbers of the pid namespaces, up to the first 0.
	namespaces *ebpf.Map
	// seen has one value, as above.
	seen *ebpf.Map
	// inside has the last call that each thread was let into, and whose failure was not seen. The key is the namespace's number in the
	// upper half, and the thread's number in it in the lower.
	inside *ebpf.Map
}

func (m *maps) close() {
	for _, one := range []*ebpf.Map{m.namespaces, m.seen, m.inside} {
		if one != nil {
			one.Close()
		}
	}
}

func newMaps() (m *maps, err error) {
	m = &maps{}
	for _, one := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&m.namespaces, ebpf.MapSpec{Name: "skep_spaces", Type: ebpf.Array, KeySize: 4, ValueSize: 8 * maxNamespaces, MaxEntries: 1}},
		{&m.seen, ebpf.MapSpec{Name: "skep_seen", Type: ebpf.Array, KeySize: 4, ValueSize: seenSize, MaxEntries: 1}},
		{&m.inside, ebpf.MapSpec{Name: "skep_inside", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 4, MaxEntries: maxInside}},
	} {
		if *one.to, err = ebpf.NewMap(&one.spec); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// enterProgram is for sys_enter, whose second word is the number.
func enterProgram(m *maps, own unix.Stat_t) asm.Instructions {
	p := asm.Instructions{asm.Mov.Reg(tracepoint, asm.R1), asm.LoadMem(number, tracepoint, 8, asm.DWord)}
	p = append(p, followedProgram(m, own)...)
	p = append(p,
		asm.StoreMem(asm.RFP, stackNumber, number, asm.Word),
		asm.LoadMapPtr(asm.R1, m.inside.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stackThread),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, stackNumber), asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
	)
	return append(p, noteProgram(m, seenUsed)...)
}

// exitProgram is for sys_exit, whose second word is the result. What has not failed was let in, and most calls don't fail.
func exitProgram(m *maps, own unix.Stat_t) asm.Instructions {
	p := asm.Instructions{
		asm.Mov.Reg(tracepoint, asm.R1),
		asm.LoadMem(asm.R1, tracepoint, 8, asm.DWord),
		asm.JSGE.Imm(asm.R1, 0, "out"),
	}
	p = append(p, followedProgram(m, own)...)
	p = append(p, numberProgram()...)
	p = append(p,
		// After a signal, the result of what was interrupted is there once more, and no number.
		asm.Mov.Reg32(asm.R1, number),
		asm.LoadImm(asm.R2, 1<<32+none, asm.DWord),
		asm.JEq.Reg(asm.R1, asm.R2, "out"),
		asm.LoadMapPtr(asm.R1, m.inside.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stackThread),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "refused"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreImm(asm.R0, 0, none, asm.Word),
		asm.Mov.Reg32(asm.R2, number),
		asm.JEq.Reg(asm.R1, asm.R2, "out"), // the filter had let it in
		asm.Mov.Imm(asm.R0, 0).WithSymbol("refused"),
	)
	return append(p, noteProgram(m, seenRefused)...)
}

// none is no call's number.
const none = -1

// followedProgram goes on only for a thread in a followed namespace, and leaves its key at stackThread. Own is the namespace of this
// process, in which most others are that are in no container: they are out at once.
func followedProgram(m *maps, own unix.Stat_t) asm.Instructions {
	var name [nameSize]byte
	copy(name[:], LauncherName)
	device := kernelDevice(own.Dev)
	return asm.Instructions{
		asm.LoadImm(asm.R1, int64(device), asm.DWord), asm.LoadImm(asm.R2, int64(own.Ino), asm.DWord),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, stackIDs), asm.Mov.Imm(asm.R4, idsSize),
		asm.FnGetNsCurrentPidTgid.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreImm(asm.RFP, stackKey, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.namespaces.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(namespace, asm.R0),
		asm.Mov.Imm(class, 0), // counts the namespaces
		asm.LoadMem(asm.R2, namespace, 0, asm.DWord).WithSymbol("next"),
		asm.JEq.Imm(asm.R2, 0, "out"),
		asm.StoreMem(asm.RFP, stackThread, asm.R2, asm.DWord),
		asm.LoadImm(asm.R1, int64(device), asm.DWord),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, stackIDs), asm.Mov.Imm(asm.R4, idsSize),
		asm.FnGetNsCurrentPidTgid.Call(),
		asm.JEq.Imm(asm.R0, 0, "followed"),
		asm.Add.Imm(namespace, 8),
		asm.Add.Imm(class, 1),
		asm.JLT.Imm(class, maxNamespaces, "next"),
		asm.Ja.Label("out"),

		asm.LoadMem(asm.R1, asm.RFP, stackThread, asm.DWord).WithSymbol("followed"),
		asm.LSh.Imm(asm.R1, 32),
		asm.LoadMem(asm.R2, asm.RFP, stackIDs, asm.Word),
		asm.Or.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.RFP, stackThread, asm.R1, asm.DWord),

		// Some kernels, of which 6.1 is one, leave what is behind the end of the name as it was.
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stackName, asm.R1, asm.DWord), asm.StoreMem(asm.RFP, stackName+8, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, stackName), asm.Mov.Imm(asm.R2, nameSize),
		asm.FnGetCurrentComm.Call(),
		asm.LoadMem(asm.R1, asm.RFP, stackName, asm.DWord),
		asm.LoadImm(asm.R2, int64(binary.NativeEndian.Uint64(name[:8])), asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R2, "program"),
		asm.LoadMem(asm.R1, asm.RFP, stackName+8, asm.DWord),
		asm.LoadImm(asm.R2, int64(binary.NativeEndian.Uint64(name[8:])), asm.DWord),
		asm.JEq.Reg(asm.R1, asm.R2, "out"),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("program"),
	}
}

// noteProgram notes number in a part of the map, and ends.
func noteProgram(m *maps, part int32) asm.Instructions {
	p := compatProgram()
	return append(p,
		asm.StoreImm(asm.RFP, stackKey, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.seen.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.JGE.Imm(number, maxNumber, "other"),
		asm.And.Imm(class, 1), asm.Mul.Imm(class, maxNumber), // that the verifier sees its range
		asm.Add.Reg(number, class),
		asm.Add.Reg(asm.R0, number),
		asm.StoreImm(asm.R0, int16(part), 1, asm.Byte),
		asm.Ja.Label("out"),
		asm.StoreImm(asm.R0, int16(seenOther+part/seenRefused), 1, asm.Byte).WithSymbol("other"),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	)
}

// readKernel leaves in class what is in the kernel's memory where R3 points, or 0.
func readKernel(size asm.Size) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, stackRead, 0, asm.Word), asm.StoreImm(asm.RFP, stackRead+4, 0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, stackRead), asm.Mov.Imm(asm.R2, int32(size.Sizeof())),
		asm.FnProbeReadKernel.Call(), // leaves zeros if it fails
		asm.LoadMem(class, asm.RFP, stackRead, asm.DWord),
	}
}

// kernelDevice is the kernel's own form of a device number.
func kernelDevice(dev uint64) uint64 {
	const minorBits = 20
	return uint64(unix.Major(dev))<<minorBits | uint64(unix.Minor(dev))
}
