package cgroup

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// On v2 there is no devices controller: a program of type BPF_PROG_TYPE_CGROUP_DEVICE at the group decides, for every
// opening and making of a device by a process in it or below (bpf-cgroup-device in the kernel's documentation). Programs
// at several levels must all allow.

// Of struct bpf_cgroup_dev_ctx: access_type is the access in the upper 16 bits and the type in the lower ones.
const (
	ctxAccessType = 0
	ctxMajor      = 4
	ctxMinor      = 8
)

// The registers of the program.
const (
	regResult = iota
	regContext
	regType
	regAccess // what is asked for and no rule has allowed yet
	regMajor
	regMinor
)

// Operations of eBPF (RFC 9669).
const (
	opLoadWord   = unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM
	opMove       = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opCopy       = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
	opAnd        = unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
	opShiftRight = unix.BPF_ALU64 | unix.BPF_RSH | unix.BPF_K
	opJump       = unix.BPF_JMP | unix.BPF_JA
	opJumpNot    = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
	opJumpAny    = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	opExit       = unix.BPF_JMP | unix.BPF_EXIT
)

// instruction is struct bpf_insn.
type instruction struct {
	op        uint8
	registers uint8 // destination in the lower four bits, source in the upper ones
	offset    int16
	immediate int32
}

// errDeviceRule is returned for a rule that no kernel could keep.
var errDeviceRule = errors.New("rule for devices not usable")

// maxDeviceRules keeps the program far below the kernel's 4096 instructions.
const maxDeviceRules = 400

// deviceProgram compiles rules. Each kind of access is decided by the last rule about it, so they are looked at from the
// end; what no rule allows is denied.
func deviceProgram(rules []DeviceRule) ([]instruction, error) {
	if len(rules) > maxDeviceRules {
		return nil, fmt.Errorf("%w: %d rules, at most %d are possible", errDeviceRule, len(rules), maxDeviceRules)
	}
	p := []instruction{
		{op: opLoadWord, registers: regContext<<4 | regType, offset: ctxAccessType},
		{op: opCopy, registers: regType<<4 | regAccess},
		{op: opShiftRight, registers: regAccess, immediate: 16},
		{op: opAnd, registers: regType, immediate: 0xffff},
		{op: opLoadWord, registers: regContext<<4 | regMajor, offset: ctxMajor},
		{op: opLoadWord, registers: regContext<<4 | regMinor, offset: ctxMinor},
	}
	for _, r := range slices.Backward(rules) {
		block, err := r.block()
		if err != nil {
			return nil, err
		}
		p = append(p, block...)
	}
	return append(p, instruction{op: opMove, registers: regResult}, instruction{op: opExit}), nil
}

// block is the part of the program for one rule. It falls through to the next one unless the rule decides.
func (r DeviceRule) block() ([]instruction, error) {
	access, err := r.access()
	if err != nil {
		return nil, err
	}
	verdict := int32(0)
	then := []instruction{
		{op: opJumpAny, registers: regAccess, offset: 1, immediate: access},
		{op: opJump, offset: 2},
	}
	if r.Allow {
		verdict = 1
		then = []instruction{
			{op: opAnd, registers: regAccess, immediate: ^access},
			{op: opJumpNot, registers: regAccess, offset: 2}, // more is asked for
		}
	}
	then = append(then, instruction{op: opMove, registers: regResult, immediate: verdict}, instruction{op: opExit})
	var tests []instruction
	test := func(register uint8, value int64) {
		tests = append(tests, instruction{op: opJumpNot, registers: register, immediate: int32(value)})
	}
	switch r.Type {
	case 'b':
		test(regType, unix.BPF_DEVCG_DEV_BLOCK)
	case 'c':
		test(regType, unix.BPF_DEVCG_DEV_CHAR)
	}
	if r.Type != 'a' && r.Major != AnyDevice {
		test(regMajor, r.Major)
	}
	if r.Type != 'a' && r.Minor != AnyDevice {
		test(regMinor, r.Minor)
	}
	for i := range tests {
		tests[i].offset = int16(len(tests) - 1 - i + len(then)) // to the end of the block
	}
	return append(tests, then...), nil
}

// access are the bits of the rule's access, after a check of the rule.
func (r DeviceRule) access() (int32, error) {
	const limit = 1 << 31 // of an immediate; the kernel's own are lower
	if !strings.ContainsRune("abc", rune(r.Type)) || r.Major < AnyDevice || r.Minor < AnyDevice || r.Major >= limit || r.Minor >= limit {
		return 0, fmt.Errorf("%w: type %q, %d:%d", errDeviceRule, r.Type, r.Major, r.Minor)
	}
	if r.Type == 'a' {
		return unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE | unix.BPF_DEVCG_ACC_MKNOD, nil
	}
	bits := int32(0)
	for _, letter := range r.Access {
		switch letter {
		case 'r':
			bits |= unix.BPF_DEVCG_ACC_READ
		case 'w':
			bits |= unix.BPF_DEVCG_ACC_WRITE
		case 'm':
			bits |= unix.BPF_DEVCG_ACC_MKNOD
		default:
			return 0, fmt.Errorf("%w: access %q is not made of r, w and m", errDeviceRule, r.Access)
		}
	}
	return bits, nil
}

// guardDevices makes the rules hold for the v2 group whose directory group is.
func guardDevices(group int, rules []DeviceRule) error {
	program, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	fd, err := loadProgram(program)
	if err != nil {
		return fmt.Errorf("load the program that guards devices: %w", err)
	}
	defer unix.Close(fd) // the group keeps it
	attach := struct{ target, program, kind, flags uint32 }{
		uint32(group), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI,
	}
	_, err = bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach))
	runtime.KeepAlive(&attach)
	if err != nil {
		return fmt.Errorf("attach the program that guards devices: %w", err)
	}
	return nil
}

func loadProgram(program []instruction) (fd int, err error) {
	license := []byte("Apache-2.0\x00") // it calls nothing that is for the GPL only
	load := struct {
		kind, count           uint32
		instructions, license unsafe.Pointer
	}{unix.BPF_PROG_TYPE_CGROUP_DEVICE, uint32(len(program)), unsafe.Pointer(&program[0]), unsafe.Pointer(&license[0])}
	fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	runtime.KeepAlive(&load)
	return fd, err
}

// bpf makes the system call, again while the kernel is interrupted in checking a program.
func bpf(command int, attributes unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attributes), size)
		if errno == unix.EAGAIN || errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(n), nil
	}
}
