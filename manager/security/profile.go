package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/internal/fault"
)

// Limits of a seccomp profile.
const (
	// MaxProfile is the most bytes of a profile: Docker's default has 17 KB, and every task of a service carries its own.
	MaxProfile = 256 << 10
	// maxRules, maxNames and maxArgs bound the lists in it: there are some 500 system calls, with 6 arguments each.
	maxRules = 4096
	maxNames = 1024
	maxArgs  = 64
	// maxErrno is the kernel's MAX_ERRNO.
	maxErrno = 4095
	// lastArg is the index of a system call's last argument.
	lastArg = 5
)

// ProfileError is a mistake in a seccomp profile.
type ProfileError struct {
	// Line and Column begin with 1; the column counts bytes.
	Line, Column int
	// Field is the path of what is wrong, such as "syscalls[2].action", or empty for the whole.
	Field string
	// Problem says what is wrong with it.
	Problem string
}

// Error gives the place first.
func (e *ProfileError) Error() string {
	where := fmt.Sprintf("line %d, column %d: ", e.Line, e.Column)
	if e.Field != "" {
		where += e.Field + ": "
	}
	return where + e.Problem
}

// CheckProfile returns a *ProfileError for the first mistake in a seccomp profile in Docker's JSON, of which OCI's is a part; nil
// when there is none. Unknown fields are mistakes: what they were meant to restrict would not be.
func CheckProfile(profile []byte) error {
	if len(profile) > MaxProfile {
		return &ProfileError{Line: 1, Column: 1, Problem: fmt.Sprintf("a seccomp profile of %d bytes: at most %d are possible", len(profile), MaxProfile)}
	}
	if err := syntax(profile); err != nil {
		return err
	}
	r := &reader{data: profile, json: json.NewDecoder(bytes.NewReader(profile))}
	r.json.UseNumber()
	found, err := r.object("", fields{
		"defaultAction": action, "defaultErrnoRet": number(maxErrno), "flags": list(maxArgs, text(checkFlag)),
		"architectures": list(maxArgs, text(checkArchitecture)), "archMap": list(maxArgs, architecture),
		"syscalls": list(maxRules, call), "listenerPath": refused("a listener is not supported"),
		"listenerMetadata": refused("a listener is not supported"),
	})
	switch {
	case err != nil:
		return err
	case !found["defaultAction"]:
		return r.at(0, "defaultAction", "is missing: it says what becomes of the system calls that no rule names")
	case found["architectures"] && found["archMap"]:
		return r.at(0, "archMap", "can't be given beside architectures: leave out one of them")
	}
	return nil
}

// syntax finds what is no JSON at all.
func syntax(profile []byte) error {
	r := &reader{data: profile}
	var anything any
	err := json.Unmarshal(profile, &anything)
	var broken *json.SyntaxError
	if errors.As(err, &broken) {
		return r.at(max(int(broken.Offset)-1, 0), "", "not JSON: %v", broken)
	}
	if err != nil {
		return r.at(0, "", "not JSON: %v", err)
	}
	return nil
}

// reader walks through a profile that is valid JSON.
type reader struct {
	data []byte
	json *json.Decoder
}

// at describes a problem at an offset.
func (r *reader) at(offset int, field, format string, args ...any) error {
	before := r.data[:min(offset, len(r.data))]
	return &ProfileError{
		Line: bytes.Count(before, []byte("\n")) + 1, Column: len(before) - bytes.LastIndexByte(before, '\n'),
		Field: field, Problem: fmt.Sprintf(format, args...),
	}
}

// next returns the next token, and where it begins.
func (r *reader) next() (token json.Token, offset int, err error) {
	offset = int(r.json.InputOffset())
	for offset < len(r.data) && strings.IndexByte(" \t\r\n,:", r.data[offset]) >= 0 {
		offset++
	}
	token, err = r.json.Token()
	if err != nil { // syntax went over it before
		err = r.at(offset, "", "not JSON: %v", err)
	}
	return token, offset, err
}

// value reads one value of a field.
type value func(r *reader, field string) error

// fields are those that an object may have.
type fields map[string]value

// object reads an object and returns which fields it has.
func (r *reader) object(path string, known fields) (found map[string]bool, err error) {
	token, offset, err := r.next()
	if err != nil {
		return nil, err
	}
	found = map[string]bool{}
	switch token {
	case nil: // null is an object without fields
		return found, nil
	case json.Delim('{'):
	default:
		return nil, r.at(offset, path, "must be an object, {...}")
	}
	for r.json.More() {
		token, offset, err := r.next()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		field := name
		if path != "" {
			field = path + "." + name
		}
		read, ok := known[name]
		switch {
		case !ok:
			return nil, r.at(offset, clip(field), "is no field of a seccomp profile here")
		case found[name]:
			return nil, r.at(offset, field, "is there twice")
		}
		found[name] = true
		if err := read(r, field); err != nil {
			return nil, err
		}
	}
	_, _, err = r.next()
	return found, err
}

// clip shortens what somebody else wrote, for a message.
func clip(s string) string { return fault.Clip(s, 80) }

// list reads a list of at most most values. JSON's null, which Docker's own tools write for an empty one, is a list.
func list(most int, element value) value {
	return func(r *reader, field string) error {
		token, offset, err := r.next()
		switch {
		case err != nil || token == nil:
			return err
		case token != json.Delim('['):
			return r.at(offset, field, "must be a list, [...]")
		}
		for i := 0; r.json.More(); i++ {
			if i == most {
				return r.at(int(r.json.InputOffset()), field, "more than %d entries", most)
			}
			if err := element(r, fmt.Sprintf("%s[%d]", field, i)); err != nil {
				return err
			}
		}
		_, _, err = r.next()
		return err
	}
}

// text reads a string; check returns what is wrong with it, or "".
func text(check func(string) string) value {
	return func(r *reader, field string) error {
		token, offset, err := r.next()
		if err != nil {
			return err
		}
		s, ok := token.(string)
		if !ok {
			return r.at(offset, field, "must be a string")
		}
		if problem := check(s); problem != "" {
			return r.at(offset, field, "%s", problem)
		}
		return nil
	}
}

// number reads an integer from 0 to most; null is as if it were not there.
func number(most uint64) value {
	return func(r *reader, field string) error {
		token, offset, err := r.next()
		if err != nil || token == nil {
			return err
		}
		text, _ := token.(json.Number)
		if n, err := strconv.ParseUint(text.String(), 10, 64); err != nil || n > most {
			return r.at(offset, field, "must be a number from 0 to %d", most)
		}
		return nil
	}
}

// refused is a field that only an empty string may be in.
func refused(why string) value {
	return text(func(s string) string {
		if s == "" {
			return ""
		}
		return why
	})
}

// action is what becomes of a system call.
func action(r *reader, field string) error {
	return text(func(s string) string {
		switch specs.LinuxSeccompAction(s) {
		case specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillThread, specs.ActKillProcess, specs.ActLog, specs.ActTrace,
			specs.ActTrap:
			return ""
		case specs.ActNotify:
			return "SCMP_ACT_NOTIFY is not supported: nobody would answer"
		}
		return fmt.Sprintf("unknown action %q: write SCMP_ACT_ALLOW, _ERRNO, _KILL_PROCESS, _KILL_THREAD, _LOG, _TRACE or _TRAP", clip(s))
	})(r, field)
}

// architecture is an entry of archMap.
func architecture(r *reader, field string) error {
	_, err := r.object(field, fields{"architecture": text(checkArchitecture), "subArchitectures": list(maxArgs, text(checkArchitecture))})
	return err
}

// call is one rule.
func call(r *reader, field string) error {
	offset := int(r.json.InputOffset())
	found, err := r.object(field, fields{
		"names": list(maxNames, text(checkName)), "name": text(checkName), "action": action, "errnoRet": number(maxErrno),
		"args": list(maxArgs, argument), "comment": text(anything), "includes": filter, "excludes": filter,
	})
	switch {
	case err != nil:
		return err
	case !found["action"]:
		return r.at(offset, field, "has no action")
	case found["names"] == found["name"]:
		return r.at(offset, field, "must have either names or name")
	}
	return nil
}

// argument is one condition of a rule.
func argument(r *reader, field string) error {
	offset := int(r.json.InputOffset())
	found, err := r.object(field, fields{
		"index": number(lastArg), "value": number(^uint64(0)), "valueTwo": number(^uint64(0)), "op": text(func(s string) string {
			switch specs.LinuxSeccompOperator(s) {
			case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan,
				specs.OpMaskedEqual:
				return ""
			}
			return fmt.Sprintf("unknown comparison %q: write SCMP_CMP_NE, _LT, _LE, _EQ, _GE, _GT or _MASKED_EQ", clip(s))
		}),
	})
	if err == nil && !found["op"] {
		return r.at(offset, field, "has no op: how is the argument compared?")
	}
	return err
}

var (
	kernelPattern = regexp.MustCompile(`^[1-9][0-9]?\.[0-9]{1,2}$`)
	namePattern   = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,63}$`)
	wordPattern   = regexp.MustCompile(`^[a-zA-Z0-9_]{1,64}$`)
)

// filter says on which machines, and for which capabilities, a rule counts.
func filter(r *reader, field string) error {
	_, err := r.object(field, fields{
		"caps": list(maxArgs, text(func(s string) string {
			if !strings.HasPrefix(s, "CAP_") || !wordPattern.MatchString(s) {
				return fmt.Sprintf("%q is no capability: write CAP_ and its name", clip(s))
			}
			return ""
		})),
		"arches": list(maxArgs, text(func(s string) string {
			if !wordPattern.MatchString(s) {
				return fmt.Sprintf("%q is no machine: write one such as amd64", clip(s))
			}
			return ""
		})),
		"minKernel": text(func(s string) string {
			if s != "" && !kernelPattern.MatchString(s) {
				return fmt.Sprintf("%q is no version of a kernel: write one such as 5.14", clip(s))
			}
			return ""
		}),
	})
	return err
}

func anything(string) string { return "" }

func checkName(s string) string {
	if !namePattern.MatchString(s) {
		return fmt.Sprintf("%q is no name of a system call", clip(s))
	}
	return ""
}

// architectures are those of the OCI runtime specification.
func architectures() []specs.Arch {
	return []specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
		specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64,
		specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
	}
}

func checkArchitecture(s string) string {
	if !slices.Contains(architectures(), specs.Arch(s)) {
		return fmt.Sprintf("unknown architecture %q: write one such as SCMP_ARCH_X86_64", clip(s))
	}
	return ""
}

func checkFlag(s string) string {
	if !slices.Contains([]string{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}, s) {
		return fmt.Sprintf("unknown flag %q: write SECCOMP_FILTER_FLAG_LOG, _SPEC_ALLOW or _TSYNC", clip(s))
	}
	return ""
}
