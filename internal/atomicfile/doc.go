// Package atomicfile reads small files, and replaces them so that after a crash a reader finds the old bytes or the new ones, never a mixture.
//
// It is no file-system seam and no lock: two writers of one path at the same time must agree among themselves.
//
//	write .NAME.tmp --> fsync it --> rename to NAME --> fsync the directory
//	      |                |                |                   |
//	   crash: old       crash: old      crash: old or new   done: new, for good
//
// # Invariants
//
//   - F1: NAME is at every moment absent, or holds exactly the bytes of one finished Write.
//   - F2: when Write returns nil, the new bytes survive a power failure. Replace, which syncs nothing, has F1 until then only.
//   - F3: the temporary file has a fixed name and its final permissions from the start, so a crash leaves at most one behind, no
//     more readable than the file itself, and the next Write or Clean removes it.
package atomicfile
