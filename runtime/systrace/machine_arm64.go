package systrace

import "github.com/cilium/ebpf/asm"

// compatProgram leaves 1 in class for a call by the 32-bit ABI, else 0: bit PSR_MODE32_BIT of pstate in struct pt_regs.
func compatProgram() asm.Instructions {
	const (
		offsetState = 264
		compatBit   = 4
	)
	p := asm.Instructions{asm.LoadMem(asm.R3, tracepoint, 0, asm.DWord), asm.Add.Imm(asm.R3, offsetState)}
	p = append(p, readKernel(asm.DWord)...)
	return append(p, asm.And.Imm(class, 1<<compatBit), asm.RSh.Imm(class, compatBit))
}

// numberProgram leaves the call's number in number, or something above all numbers: syscallno of struct pt_regs.
func numberProgram() asm.Instructions {
	const offsetNumber = 280
	p := asm.Instructions{asm.LoadMem(asm.R3, tracepoint, 0, asm.DWord), asm.Add.Imm(asm.R3, offsetNumber)}
	return append(append(p, readKernel(asm.Word)...), asm.Mov.Reg(number, class))
}
