#include "textflag.h"

// System calls of this architecture; see syscalls(2).
#define SYS_ioctl 29
#define SYS_write 64
#define SYS_exit_group 94
#define SYS_kill 129
#define SYS_rt_sigprocmask 135
#define SYS_rt_sigtimedwait 137
#define SYS_setpgid 154
#define SYS_getpid 172
#define SYS_clone 220
#define SYS_execve 221
#define SYS_wait4 260

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
	MOVD $program<>(SB), R0
	MOVD R0, ret+0(FP)
	RET

// program is what Program wraps: it must not refer to anything outside of itself. The kernel starts it with the count of
// arguments, the arguments and the environment on the stack.
//
//	R19 scratch memory: 0 signal set, 8 wait status, 16 process group, 24 text
//	R20 the arguments, R21 the environment, R22 the separator, R23 the child or the exit status
TEXT program<>(SB), NOSPLIT|NOFRAME, $0-0
	MOVD RSP, R19
	MOVD (R19), R0
	ADD  $8, R19, R20
	ADD  R0<<3, R20, R21
	ADD  $8, R21
	SUB  $64, R19
	MOVD R19, RSP

	MOVD $-1, R0
	MOVD R0, (R19)
	MOVD $SIG_SETMASK, R0
	MOVD R19, R1
	MOVD $0, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigprocmask, R8
	SVC

	MOVD $SIGCHLD, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $0, R3
	MOVD $0, R4
	MOVD $SYS_clone, R8
	SVC
	MOVD R0, R23
	CMP  $0, R0
	BEQ  child
	BLT  cannot

next:
	MOVD R19, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigtimedwait, R8
	SVC
	CMP  $0, R0
	BLE  next // interrupted
	CMP  $SIGCHLD, R0
	BEQ  reap
	CMP  $SIGTTIN, R0
	BEQ  next
	CMP  $SIGTTOU, R0
	BEQ  next
	MOVD R0, R1
	MOVD R23, R0
	MOVD $SYS_kill, R8
	SVC
	JMP  next

reap:
	MOVD $-1, R0
	ADD  $8, R19, R1
	MOVD $WNOHANG, R2
	MOVD $0, R3
	MOVD $SYS_wait4, R8
	SVC
	CMP  $0, R0
	BLE  next // nobody else has ended
	CMP  R23, R0
	BNE  reap
	MOVWU 8(R19), R23
	AND  $0x7f, R23, R0
	CMP  $0, R0
	BEQ  returned
	ADD  $128, R0, R23
	JMP  exit

returned:
	LSR $8, R23, R23
	AND $0xff, R23, R23
	JMP exit

child:
	MOVD $0, R0
	MOVD $0, R1
	MOVD $SYS_setpgid, R8
	SVC
	MOVD $SYS_getpid, R8
	SVC
	MOVD R0, 16(R19)
	MOVD $0, R0 // fails where standard input is no terminal
	MOVD $TIOCSPGRP, R1
	ADD  $16, R19, R2
	MOVD $SYS_ioctl, R8
	SVC
	MOVD $0, R0
	MOVD R0, (R19)
	MOVD $SIG_SETMASK, R0
	MOVD R19, R1
	MOVD $0, R2
	MOVD $8, R3
	MOVD $SYS_rt_sigprocmask, R8
	SVC
	MOVD R20, R22

find:
	ADD   $8, R22
	MOVD  (R22), R0
	CMP   $0, R0
	BEQ   cannot
	MOVBU (R0), R1
	CMP   $'-', R1
	BNE   find
	MOVBU 1(R0), R1
	CMP   $'-', R1
	BNE   find
	MOVBU 2(R0), R1
	CMP   $0, R1
	BNE   find
	MOVD  $127, R23

try:
	ADD  $8, R20
	CMP  R22, R20
	BEQ  say
	MOVD (R20), R0
	ADD  $8, R22, R1
	MOVD R21, R2
	MOVD $SYS_execve, R8
	SVC
	CMN  $ENOENT, R0
	BEQ  try
	CMN  $ENOTDIR, R0
	BEQ  try
	MOVD $126, R23
	JMP  try

cannot:
	MOVD $126, R23

say:
	MOVD $0x6163203a74696e69, R0 // "init: can't run program" and a new line
	MOVD R0, 24(R19)
	MOVD $0x206e75722074276e, R0
	MOVD R0, 32(R19)
	MOVD $0x0a6d6172676f7270, R0
	MOVD R0, 40(R19)
	MOVD $2, R0
	ADD  $24, R19, R1
	MOVD $24, R2
	MOVD $SYS_write, R8
	SVC

exit:
	MOVD R23, R0
	MOVD $SYS_exit_group, R8
	SVC
	BRK  $0

	// the marker
	WORD $0x20646e65
	WORD $0x7020666f
	WORD $0x20316469
	WORD $0x65646f63
