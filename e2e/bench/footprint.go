package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// calmed is after how long the supervisor has given back what launching took.
const calmed = 5 * time.Second

// memory measures the supervisor with many containers that live: at once, and when it is calm.
func (l *launcher) memory(ctx context.Context) error {
	idle, err := memoryOf(l.cmd.Process.Pid, "status", "VmRSS")
	if err != nil {
		return err
	}
	for i := range crowdMembers {
		r, err := l.request(fmt.Sprint("m", i), "sleep", "1000")
		if err != nil {
			return err
		}
		if _, err := l.Create(ctx, r); err != nil {
			return err
		}
		if err := l.Start(ctx, r.ID); err != nil {
			return err
		}
	}
	busy, err := memoryOf(l.cmd.Process.Pid, "status", "VmRSS")
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(calmed):
	}
	full, err := memoryOf(l.cmd.Process.Pid, "status", "VmRSS")
	if err != nil {
		return err
	}
	forker, err := l.forker()
	if err != nil {
		return err
	}
	own, err := memoryOf(forker, "status", "RssAnon")
	if err != nil {
		return err
	}
	l.row(fmt.Sprintf("supervisor's memory, %d containers", crowdMembers),
		fmt.Sprintf("%.1f MB RSS (%.1f MB at once, %.1f MB before), %.0f KB each; the forker's own %.1f MB", float64(full)/1024,
			float64(busy)/1024, float64(idle)/1024, float64(max(0, full-idle))/crowdMembers, float64(own)/1024), "<= 12 MB, <= 40 KB each")
	return nil
}

// forker is the process that forks for the supervisor.
func (l *launcher) forker() (int, error) {
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	parent := fmt.Sprintf("\nPPid:\t%d\n", l.cmd.Process.Pid)
	for _, path := range commands {
		command, _ := os.ReadFile(path)
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if strings.HasPrefix(string(command), "/proc/self/exe\x00fork\x00") && strings.Contains(string(status), parent) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, errors.New("the supervisor has no forker")
}
