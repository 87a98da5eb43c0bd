package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// files makes a directory of a group.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestStats_Unified(t *testing.T) {
	g := &Group{unified: true, dirs: []string{files(t, map[string]string{
		"cpu.stat":            "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 7\nnr_throttled 3\nthrottled_usec 90\n",
		"cpu.pressure":        "some avg10=1.50 avg60=0.25 avg300=0.05 total=77\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=5\n",
		"memory.current":      "1000\n",
		"memory.stat":         "anon 600\nfile 400\ninactive_file 300\n",
		"memory.max":          "max\n",
		"memory.swap.current": "12\n",
		"memory.events":       "low 0\nhigh 4\nmax 0\noom 2\noom_kill 1\n",
		"pids.current":        "5\n",
		"pids.max":            "20\n",
		"io.stat":             "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
	})}}
	got, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		CPU: CPUStats{
			Usage: 3 * time.Millisecond, User: 2 * time.Millisecond, System: time.Millisecond,
			Periods: 7, Throttled: 3, ThrottledTime: 90 * time.Microsecond,
			Pressure: &Pressure{
				Some: Stall{Avg10: 1.5, Avg60: 0.25, Avg300: 0.05, Total: 77 * time.Microsecond}, Full: Stall{Avg10: 0.5, Total: 5 * time.Microsecond},
			},
		},
		Memory: MemoryStats{Usage: 1000, Cache: 300, Swap: 12, OOMKills: 1},
		Pids:   5, PidsLimit: 20,
		IO: IOStats{ReadBytes: 11, WriteBytes: 22, Reads: 4, Writes: 6},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestStats_Legacy(t *testing.T) {
	cpu := files(t, map[string]string{
		"cpu.stat":      "nr_periods 7\nnr_throttled 3\nthrottled_time 90\n",
		"cpuacct.usage": "3000\n", "cpuacct.usage_user": "2000\n", "cpuacct.usage_sys": "1000\n",
	})
	memory := files(t, map[string]string{
		"memory.usage_in_bytes": "1000\n", "memory.limit_in_bytes": "9223372036854771712\n",
		"memory.stat":        "cache 1\ninactive_file 2\ntotal_inactive_file 300\ntotal_swap 12\n",
		"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
	})
	pids := files(t, map[string]string{"pids.current": "5\n", "pids.max": "max\n"})
	blkio := files(t, map[string]string{
		"blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\n8:16 Write 2\nTotal 33\n",
		"blkio.throttle.io_serviced":      "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
	})
	g := &Group{views: []View{
		{[]string{"cpu", "cpuacct"}, cpu}, {[]string{"memory"}, memory}, {[]string{"pids"}, pids}, {[]string{"blkio"}, blkio},
	}}
	got, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		CPU:    CPUStats{Usage: 3000, User: 2000, System: 1000, Periods: 7, Throttled: 3, ThrottledTime: 90},
		Memory: MemoryStats{Usage: 1000, Cache: 300, Swap: 12, OOMKills: 1},
		Pids:   5,
		IO:     IOStats{ReadBytes: 11, WriteBytes: 22, Reads: 1, Writes: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestStats_OfAProcess(t *testing.T) {
	tr := tree(t)
	g := create(t, tr, "stats", Limits{Memory: 64 << 20, Pids: 9})
	cmd := exec.Command("sh", "-c", "read x; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	put(t, g, cmd.Process.Pid)
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	got, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if got.CPU.Usage <= 0 || got.Memory.Usage == 0 || got.Memory.Limit != 64<<20 || got.Pids != 1 || got.PidsLimit != 9 {
		t.Errorf("stats %+v", got)
	}
	gone, err := tr.Group("gone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Stats(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stats of a group that is not there: %v", err)
	}
}
