for f in /tmp/t/p*.pid /tmp/t/r*.pid; do [ -e $f ] && kill $(cat $f) 2>/dev/null; rm -f $f; done
