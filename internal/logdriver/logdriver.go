package logdriver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// The names of drivers.
const (
	// File keeps the output in files of the node.
	File = "file"
	// None keeps nothing.
	None = "none"
	// Journald and Syslogd keep files as File does, and send what is in them on.
	Journald = "journald"
	Syslogd  = "syslog"
)

// Limits of the files of one task. The least size has room for a line at its largest.
const (
	minSize  = 256 << 10
	maxFiles = 100
	maxTotal = 1 << 30
)

// What a task's files are when its service says nothing: 3 of 10 MiB.
const (
	DefaultMaxSize  = 10 << 20
	DefaultMaxFiles = 3
)

// defaultTag is SERVICE.SLOT.
const defaultTag = "{{.Service.Name}}.{{.Task.Slot}}"

// Driver is what becomes of a task's output. The zero value is not valid; Parse returns those that are.
type Driver struct {
	Name string
	// MaxSize is the most bytes of one file, and MaxFiles how many there are.
	MaxSize  int64
	MaxFiles int
	// Tag is a template of what the lines are called where they go.
	Tag string
	// Labels are those of the container that journald gets.
	Labels []string
	Syslog Syslog
}

// Name returns the name of a driver as it is stored.
func Name(name string) string {
	switch name {
	case "", "json-file", "local":
		return File
	}
	return name
}

// options are those of each driver, with what reads them into a Driver.
func options() map[string]map[string]func(*Driver, string) error {
	all := map[string]map[string]func(*Driver, string) error{
		File: {}, None: {},
		Journald: {"tag": (*Driver).setTag, "labels": (*Driver).setLabels},
		Syslogd: {
			"tag": (*Driver).setTag, "syslog-address": (*Driver).setAddress, "syslog-facility": (*Driver).setFacility,
			"syslog-format": (*Driver).setFormat, "syslog-tls-ca-cert": (*Driver).setCA,
		},
	}
	for _, name := range []string{File, Journald, Syslogd} {
		all[name]["max-size"], all[name]["max-file"] = (*Driver).setMaxSize, (*Driver).setMaxFiles
	}
	return all
}

// Parse reads a driver, or says all that is wrong with it; nil is the default one.
func Parse(spec *api.LogDriver) (Driver, error) {
	d := Driver{Name: Name(spec.GetName()), MaxSize: DefaultMaxSize, MaxFiles: DefaultMaxFiles}
	drivers := options()
	known, ok := drivers[d.Name]
	if !ok {
		return Driver{}, fmt.Errorf("unknown log driver %q: the drivers are %s", quoted(spec.GetName()), names(drivers))
	}
	if d.Name == Journald || d.Name == Syslogd {
		d.Tag = defaultTag
	}
	if d.Name == Syslogd {
		d.Syslog = Syslog{Network: Unixgram, Address: "/dev/log", Facility: facilities()["daemon"]}
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(spec.GetOptions())) {
		set, ok := known[key]
		switch {
		case !ok && len(known) == 0:
			errs = append(errs, fmt.Errorf("unknown option %q: the log driver %s has none", quoted(key), d.Name))
		case !ok:
			errs = append(errs, fmt.Errorf("unknown option %q of the log driver %s: it has %s", quoted(key), d.Name, names(known)))
		default:
			if err := set(&d, spec.GetOptions()[key]); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", key, err))
			}
		}
	}
	if len(errs) == 0 && d.MaxSize*int64(d.MaxFiles) > maxTotal {
		errs = append(errs, fmt.Errorf("%d files of %d bytes: the files of a task may have 1g together", d.MaxFiles, d.MaxSize))
	}
	if len(errs) == 0 && d.Name == Syslogd {
		errs = append(errs, d.Syslog.check())
	}
	if err := errors.Join(errs...); err != nil {
		return Driver{}, err
	}
	return d, nil
}

func (d *Driver) setMaxSize(value string) (err error) {
	if d.MaxSize, err = units.RAMInBytes(value); err != nil || d.MaxSize < minSize || d.MaxSize > maxTotal {
		return fmt.Errorf("invalid size %q: write 256k to 1g", quoted(value))
	}
	return nil
}

func (d *Driver) setMaxFiles(value string) (err error) {
	if d.MaxFiles, err = strconv.Atoi(value); err != nil || d.MaxFiles < 1 || d.MaxFiles > maxFiles {
		return fmt.Errorf("invalid number of files %q: write 1 to %d", quoted(value), maxFiles)
	}
	return nil
}

// names lists keys for people.
func names[V any](of map[string]V) string {
	all := slices.Sorted(maps.Keys(of))
	if len(all) == 1 {
		return all[0]
	}
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " and " + all[last]
}

// quoted is what an error repeats of what somebody wrote.
func quoted(text string) string {
	const most = 100
	return fault.Clip(text, most)
}
