// Command pgzip compresses standard input to standard output the way nxs-backup v3 does: level 9,
// blocks of 1 MiB, one block per processor in flight. It is the rival of the codec benchmark.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/pgzip"
)

const blockSize = 1 << 20

func main() {
	if err := compress(os.Stdout, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "pgzip:", err)
		os.Exit(1)
	}
}

func compress(out io.Writer, in io.Reader) error {
	writer, err := pgzip.NewWriterLevel(out, pgzip.BestCompression)
	if err != nil {
		return err
	}
	if err := writer.SetConcurrency(blockSize, runtime.GOMAXPROCS(0)); err != nil {
		return err
	}
	if _, err := io.Copy(writer, in); err != nil {
		return err
	}
	return writer.Close()
}
