package systrace_test

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/systrace"
)

// BenchmarkCall measures what recording costs a process that is not recorded: a call of the cheapest kind, with no recorder and beside one
// that follows some containers.
func BenchmarkCall(b *testing.B) {
	calls := func(b *testing.B) {
		for b.Loop() {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
	}
	b.Run("not recording", calls)
	if os.Geteuid() != 0 {
		b.Skip("needs root: to load programs into the kernel, and to make pid namespaces")
	}
	for _, n := range []int{0, 1, 4, 16} {
		b.Run(fmt.Sprintf("following %d", n), func(b *testing.B) {
			r, err := systrace.Open()
			if err != nil {
				b.Skip("needs a kernel that records system calls:", err)
			}
			defer r.Close()
			for range n {
				pid, _, _ := play(b, "use")
				if err := r.Follow(pid); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			calls(b)
		})
	}
}
