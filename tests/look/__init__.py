"""What only other people's programs can show: the page in a real browser, the workbook and CSV files in a real spreadsheet."""
