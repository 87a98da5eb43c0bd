package systrace

import "github.com/cilium/ebpf/asm"

// compatProgram leaves 1 in class for a call by the 32-bit ABI, else 0: bit TS_COMPAT of the word status of struct thread_info, with
// which struct task_struct begins (asm/thread_info.h; so since 5.11).
func compatProgram() asm.Instructions {
	const (
		offsetStatus = 16
		compatBit    = 1
	)
	p := asm.Instructions{asm.FnGetCurrentTask.Call(), asm.Add.Imm(asm.R0, offsetStatus), asm.Mov.Reg(asm.R3, asm.R0)}
	p = append(p, readKernel(asm.Word)...)
	return append(p, asm.And.Imm(class, 1<<compatBit), asm.RSh.Imm(class, compatBit))
}

// numberProgram leaves the call's number in number, or something above all numbers: orig_ax of struct pt_regs.
func numberProgram() asm.Instructions {
	const offsetNumber = 120
	p := asm.Instructions{asm.LoadMem(asm.R3, tracepoint, 0, asm.DWord), asm.Add.Imm(asm.R3, offsetNumber)}
	return append(append(p, readKernel(asm.DWord)...), asm.Mov.Reg(number, class))
}
