package agent_test

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkExecutor_Start measures a container's way from nothing to running, with its image here, and back to nothing.
func BenchmarkExecutor_Start(b *testing.B) {
	m := newMachine(b)
	if _, _, err := m.exec.Adopt(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for n := 0; b.Loop(); n++ {
		tk := newTask(fmt.Sprintf("b%d", n), "serve")
		if err := m.exec.Prepare(ctx, tk); err != nil {
			b.Fatal(err)
		}
		if _, err := m.exec.Start(ctx, tk); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := m.exec.Remove(ctx, tk.GetId()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
