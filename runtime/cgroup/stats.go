package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Stats are what a group has used. Counters only grow. What the machine's hierarchies don't tell is zero or nil.
type Stats struct {
	CPU    CPUStats
	Memory MemoryStats
	// Pids are the processes and threads there are, and PidsLimit the most there may be, 0 for any number.
	Pids, PidsLimit uint64
	IO              IOStats
}

// CPUStats are processor time, and how the quota held it back.
type CPUStats struct {
	Usage, User, System time.Duration
	// Periods are those of the quota in which the group ran; in Throttled of them it was held back, for ThrottledTime.
	Periods, Throttled uint64
	ThrottledTime      time.Duration
	Pressure           *Pressure `json:",omitempty"`
}

// MemoryStats are in bytes.
type MemoryStats struct {
	// Usage is all that is charged to the group, of which Cache is page cache that the kernel can take back at once.
	Usage, Cache uint64
	// Limit is 0 for none.
	Limit    uint64
	Swap     uint64
	OOMKills uint64
	Pressure *Pressure `json:",omitempty"`
}

// IOStats count what went to and came from block devices.
type IOStats struct {
	ReadBytes, WriteBytes, Reads, Writes uint64
	Pressure                             *Pressure `json:",omitempty"`
}

// Pressure is how much processes waited for a resource (PSI, on v2 only): Some of them, and all at once (Full). The shares are in
// percent, of the last 10, 60 and 300 seconds.
type Pressure struct {
	Some, Full Stall
}

// Stall is a share of time and its total.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// Stats reads what the group has used. It gives fs.ErrNotExist when the group is gone.
func (g *Group) Stats() (Stats, error) {
	var s Stats
	r := reader{group: g}
	if g.unified {
		r.unified(&s)
	} else {
		r.legacy(&s)
	}
	if r.err != nil {
		return Stats{}, fmt.Errorf("read statistics of control group %s: %w", g.name, r.err)
	}
	return s, nil
}

// reader reads files of a group and keeps the first error that is not a file that this machine lacks.
type reader struct {
	group *Group
	err   error
}

func (r *reader) unified(s *Stats) {
	dir := r.group.dirs[0]
	cpu := fields(r.text(dir, "cpu.stat"))
	s.CPU = CPUStats{
		Usage: micros(cpu["usage_usec"]), User: micros(cpu["user_usec"]), System: micros(cpu["system_usec"]),
		Periods: cpu["nr_periods"], Throttled: cpu["nr_throttled"], ThrottledTime: micros(cpu["throttled_usec"]),
		Pressure: pressure(r.text(dir, "cpu.pressure")),
	}
	s.Memory = MemoryStats{
		Usage: number(r.text(dir, "memory.current")), Cache: fields(r.text(dir, "memory.stat"))["inactive_file"],
		Limit: number(r.text(dir, "memory.max")), Swap: number(r.text(dir, "memory.swap.current")),
		OOMKills: fields(r.text(dir, "memory.events"))["oom_kill"], Pressure: pressure(r.text(dir, "memory.pressure")),
	}
	s.Pids, s.PidsLimit = number(r.text(dir, "pids.current")), number(r.text(dir, "pids.max"))
	for line := range strings.Lines(r.text(dir, "io.stat")) {
		_, rest, _ := strings.Cut(line, " ")
		io := fields(strings.NewReplacer("=", " ", " ", "\n").Replace(rest))
		s.IO.ReadBytes += io["rbytes"]
		s.IO.WriteBytes += io["wbytes"]
		s.IO.Reads += io["rios"]
		s.IO.Writes += io["wios"]
	}
	s.IO.Pressure = pressure(r.text(dir, "io.pressure"))
}

func (r *reader) legacy(s *Stats) {
	for _, v := range r.group.views {
		for _, c := range v.Controllers {
			r.controller(c, v.Dir, s)
		}
	}
}

// noLimit is what v1 shows as a memory limit when there is none: the largest multiple of a page, or nearly.
const noLimit = 1 << 62

func (r *reader) controller(name, dir string, s *Stats) {
	switch name {
	case "memory":
		stat := fields(r.text(dir, "memory.stat"))
		s.Memory = MemoryStats{
			Usage: number(r.text(dir, "memory.usage_in_bytes")), Cache: stat["total_inactive_file"], Swap: stat["total_swap"],
			Limit: number(r.text(dir, "memory.limit_in_bytes")), OOMKills: fields(r.text(dir, "memory.oom_control"))["oom_kill"],
		}
		if s.Memory.Limit >= noLimit {
			s.Memory.Limit = 0
		}
	case "cpu":
		stat := fields(r.text(dir, "cpu.stat"))
		s.CPU.Periods, s.CPU.Throttled = stat["nr_periods"], stat["nr_throttled"]
		s.CPU.ThrottledTime = nanos(stat["throttled_time"])
	case "cpuacct":
		s.CPU.Usage = nanos(number(r.text(dir, "cpuacct.usage")))
		s.CPU.User, s.CPU.System = nanos(number(r.text(dir, "cpuacct.usage_user"))), nanos(number(r.text(dir, "cpuacct.usage_sys")))
	case "pids":
		s.Pids, s.PidsLimit = number(r.text(dir, "pids.current")), number(r.text(dir, "pids.max"))
	case "blkio":
		s.IO.ReadBytes, s.IO.WriteBytes = throttled(r.text(dir, "blkio.throttle.io_service_bytes"))
		s.IO.Reads, s.IO.Writes = throttled(r.text(dir, "blkio.throttle.io_serviced"))
	}
}

// text reads a file; "" if this machine has no such file.
func (r *reader) text(dir, file string) string {
	text, err := os.ReadFile(filepath.Join(dir, file))
	switch {
	case err == nil:
		return string(text)
	case errors.Is(err, unix.EOPNOTSUPP): // pressure, where it is not accounted for
	case errors.Is(err, fs.ErrNotExist):
		if _, gone := os.Stat(dir); gone != nil && r.err == nil {
			r.err = err
		}
	case errors.Is(err, unix.ENODEV) && r.err == nil: // it went while it was read
		r.err = fs.ErrNotExist
	case r.err == nil:
		r.err = err
	}
	return ""
}

// number reads a file of one number; 0 for "max" and for nothing.
func number(text string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// fields reads lines of "key number".
func fields(text string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out[key] = number(value)
		}
	}
	return out
}

// throttled sums up lines of "major:minor operation number".
func throttled(text string) (read, write uint64) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 3 {
			continue
		}
		switch words[1] {
		case "Read":
			read += number(words[2])
		case "Write":
			write += number(words[2])
		}
	}
	return read, write
}

// pressure reads a PSI file, such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"; nil if there is none.
func pressure(text string) *Pressure {
	if text == "" {
		return nil
	}
	p := &Pressure{}
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		stall := &p.Some
		if kind == "full" {
			stall = &p.Full
		}
		for _, word := range strings.Fields(rest) {
			key, value, _ := strings.Cut(word, "=")
			share, err := strconv.ParseFloat(value, 64)
			if err != nil {
				continue
			}
			switch key {
			case "avg10":
				stall.Avg10 = share
			case "avg60":
				stall.Avg60 = share
			case "avg300":
				stall.Avg300 = share
			case "total":
				stall.Total = micros(number(value))
			}
		}
	}
	return p
}

func micros(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }

func nanos(n uint64) time.Duration { return time.Duration(n) }
