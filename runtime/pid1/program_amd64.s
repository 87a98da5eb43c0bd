#include "textflag.h"

// System calls of this architecture; see syscalls(2).
#define SYS_write 1
#define SYS_rt_sigprocmask 14
#define SYS_ioctl 16
#define SYS_getpid 39
#define SYS_clone 56
#define SYS_execve 59
#define SYS_wait4 61
#define SYS_kill 62
#define SYS_setpgid 109
#define SYS_rt_sigtimedwait 128
#define SYS_exit_group 231

#define SIG_SETMASK 2
#define SIGCHLD 17
#define SIGTTIN 21
#define SIGTTOU 22
#define WNOHANG 1
#define TIOCSPGRP 0x5410
#define ENOENT 2
#define ENOTDIR 20

// func entry() unsafe.Pointer
TEXT ·entry(SB), NOSPLIT, $0-8
	LEAQ program<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// program is what Program wraps: it must not refer to anything outside of itself. The kernel starts it with the count of
// arguments, the arguments and the environment on the stack.
//
//	BX  scratch memory: 0 signal set, 8 wait status, 16 process group, 24 text
//	R12 the arguments, R13 the environment, R14 the separator, R15 the child or the exit status
TEXT program<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ SP, BX
	MOVQ (BX), AX
	LEAQ 8(BX), R12
	LEAQ 8(R12)(AX*8), R13
	SUBQ $64, BX
	MOVQ BX, SP

	MOVQ $-1, AX
	MOVQ AX, (BX)
	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $SIG_SETMASK, DI
	MOVQ BX, SI
	XORQ DX, DX
	MOVQ $8, R10
	SYSCALL

	MOVQ $SYS_clone, AX
	MOVQ $SIGCHLD, DI
	XORQ SI, SI
	XORQ DX, DX
	XORQ R10, R10
	XORQ R8, R8
	SYSCALL
	MOVQ AX, R15
	TESTQ AX, AX
	JEQ  child
	JMI  cannot

next:
	MOVQ $SYS_rt_sigtimedwait, AX
	MOVQ BX, DI
	XORQ SI, SI
	XORQ DX, DX
	MOVQ $8, R10
	SYSCALL
	CMPQ AX, $0
	JLE  next // interrupted
	CMPQ AX, $SIGCHLD
	JEQ  reap
	CMPQ AX, $SIGTTIN
	JEQ  next
	CMPQ AX, $SIGTTOU
	JEQ  next
	MOVQ AX, SI
	MOVQ R15, DI
	MOVQ $SYS_kill, AX
	SYSCALL
	JMP  next

reap:
	MOVQ $SYS_wait4, AX
	MOVQ $-1, DI
	LEAQ 8(BX), SI
	MOVQ $WNOHANG, DX
	XORQ R10, R10
	SYSCALL
	CMPQ AX, $0
	JLE  next // nobody else has ended
	CMPQ AX, R15
	JNE  reap
	MOVL 8(BX), R15
	MOVL R15, AX
	ANDL $0x7f, AX
	JEQ  returned
	ADDL $128, AX
	MOVL AX, R15
	JMP  exit

returned:
	SHRL $8, R15
	ANDL $0xff, R15
	JMP  exit

child:
	MOVQ $SYS_setpgid, AX
	XORQ DI, DI
	XORQ SI, SI
	SYSCALL
	MOVQ $SYS_getpid, AX
	SYSCALL
	MOVQ AX, 16(BX)
	MOVQ $SYS_ioctl, AX // fails where standard input is no terminal
	XORQ DI, DI
	MOVQ $TIOCSPGRP, SI
	LEAQ 16(BX), DX
	SYSCALL
	MOVQ $0, (BX)
	MOVQ $SYS_rt_sigprocmask, AX
	MOVQ $SIG_SETMASK, DI
	MOVQ BX, SI
	XORQ DX, DX
	MOVQ $8, R10
	SYSCALL
	MOVQ R12, R14

find:
	ADDQ $8, R14
	MOVQ (R14), AX
	TESTQ AX, AX
	JEQ  cannot
	CMPB (AX), $'-'
	JNE  find
	CMPB 1(AX), $'-'
	JNE  find
	CMPB 2(AX), $0
	JNE  find
	MOVQ $127, R15

try:
	ADDQ $8, R12
	CMPQ R12, R14
	JEQ  say
	MOVQ $SYS_execve, AX
	MOVQ (R12), DI
	LEAQ 8(R14), SI
	MOVQ R13, DX
	SYSCALL
	CMPQ AX, $-ENOENT
	JEQ  try
	CMPQ AX, $-ENOTDIR
	JEQ  try
	MOVQ $126, R15
	JMP  try

cannot:
	MOVQ $126, R15

say:
	MOVQ $0x6163203a74696e69, AX // "init: can't run program" and a new line
	MOVQ AX, 24(BX)
	MOVQ $0x206e75722074276e, AX
	MOVQ AX, 32(BX)
	MOVQ $0x0a6d6172676f7270, AX
	MOVQ AX, 40(BX)
	MOVQ $SYS_write, AX
	MOVQ $2, DI
	LEAQ 24(BX), SI
	MOVQ $24, DX
	SYSCALL

exit:
	MOVQ $SYS_exit_group, AX
	MOVQ R15, DI
	SYSCALL
	INT  $3

	// the marker
	LONG $0x20646e65
	LONG $0x7020666f
	LONG $0x20316469
	LONG $0x65646f63
