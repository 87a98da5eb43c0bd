package supervisor_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/skep-io/skep/runtime/client"
)

// BenchmarkLaunch is the life of a container that does nothing, through the socket of a supervisor in a process of its
// own: create, start, exit, delete. Most of it is the kernel's: namespaces, mounts, control groups. cpu-ms/op is the
// processor time of the supervisor and its containers, which other work on the machine changes less than the time.
func BenchmarkLaunch(b *testing.B) {
	n := prepare(b)
	p := spawn(n)
	r := n.request("c", "exit", "0")
	r.Log.Path = ""
	i := 0
	for b.Loop() {
		i++
		r.ID = fmt.Sprint("c", i)
		n.begin(r)
		if s := n.await(r.ID, client.EventExited); s.ExitCode != 0 {
			b.Fatalf("%+v", s)
		}
		if err := n.Delete(b.Context(), r.ID); err != nil {
			b.Fatal(err)
		}
	}
	p.stop(syscall.SIGTERM)
	cpu := p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(i), "cpu-ms/op")
}

// BenchmarkCreate is the part before the program: create and delete.
func BenchmarkCreate(b *testing.B) {
	n := prepare(b)
	spawn(n)
	r := n.request("c", "exit", "0")
	r.Log.Path = ""
	i := 0
	for b.Loop() {
		i++
		r.ID = fmt.Sprint("c", i)
		if _, err := n.Create(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		if err := n.Delete(b.Context(), r.ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExec is the life of a process in a running container, through the socket: start, exit.
func BenchmarkExec(b *testing.B) {
	n := prepare(b)
	spawn(n)
	n.begin(n.request("c", "wait"))
	for b.Loop() {
		e, err := n.Exec(b.Context(), "c", client.ExecRequest{Args: []string{"/inside", "exit", "0"}})
		if err != nil {
			b.Fatal(err)
		}
		if code, err := e.Wait(b.Context()); code != 0 || err != nil {
			b.Fatal(code, err)
		}
		e.Close()
	}
}
